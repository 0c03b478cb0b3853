//! The commands of API tokens. They ask control's API, so that rules, limits and the audit log are the same as everywhere.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use millrace_control::domain::access::{NewToken, Role, Scope};
use millrace_node::NodeArgs;
use millrace_outgoing::{Client, Destinations, Limits, Request, Response, Target};
use millrace_runtime::{ConfigTree, Secret};
use serde_json::Value;

use crate::data::{admin_token_in, control_url_in, reachable};

/// Limits of a request to the API: it answers within 20 s, and lists at most 1000 tokens.
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), total: Duration::from_secs(30), answer_bytes: 4 * 1024 * 1024 };

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// The URL of the API. Without it: the one in DIR/ready.json, else `control.listen` on this machine.
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// The data directory of a running `millrace standalone`, for its URL and its admin token.
    #[arg(long, value_name = "DIR", default_value = "millrace-data", global = true)]
    data: PathBuf,
    /// A file with the token to ask with. Without it: `control.admin_token`, else DIR/admin-token.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Prints the whole answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Makes a token and prints it: it is shown only now.
    Create(CreateArgs),
    /// Lists the tokens.
    List,
    /// Revokes a token: every control refuses it from the next request on.
    Revoke {
        /// The id of the token.
        id: String,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Tells people what the token is for.
    #[arg(long)]
    name: String,
    /// One of `viewer`, `publisher`, `operator` and `admin`.
    #[arg(long, value_parser = Role::from_str)]
    role: Role,
    /// The owner that the token acts for; a publisher needs one.
    #[arg(long)]
    owner: Option<String>,
    /// A scope of the role; may be repeated. Without any, the token has all of them.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = Scope::from_str)]
    scopes: Vec<Scope>,
    /// Time until the token expires, e.g. `90d`, `12h`, `30m` or `600s`. Without it, it never does.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires_in: Option<u64>,
}

/// Parses a time such as `90d`.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number with s, m, h or d, e.g. 90d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let of_unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    number.checked_mul(of_unit).ok_or_else(wrong)
}

/// Runs a command to its end.
///
/// # Errors
/// When control cannot be asked, or refuses.
pub(crate) fn run(args: &TokenArgs, tree: &ConfigTree) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the runtime did not start")?.block_on(ask(args, tree))
}

async fn ask(args: &TokenArgs, tree: &ConfigTree) -> anyhow::Result<()> {
    let control: millrace_control::Config = tree.section()?;
    let (url, secret) = (url(args, &control)?, secret(args, &control)?);
    let base: Target = url.parse().with_context(|| format!("the URL of the API, {url}"))?;
    let client = Client::new(LIMITS, Destinations::Any)?;
    let tokens = base.with_path(["api", "v1", "tokens"]);
    let request = match &args.command {
        TokenCommand::Create(create) => Request::post_json(tokens, serde_json::to_vec(&body(create))?),
        TokenCommand::List => Request::get(tokens),
        TokenCommand::Revoke { id } => Request::delete(tokens.with_path([id.as_str()])),
    };
    let answer = client.send(request.bearer(&secret)).await.context("control was not asked")?;
    let answer = read(&answer)?;
    match &args.command {
        TokenCommand::Revoke { id } => eprintln!("token {id} is revoked"),
        _ if args.json => println!("{}", serde_json::to_string_pretty(&answer)?),
        TokenCommand::Create(_) => {
            eprintln!("token {}, shown only now:", text(&answer["id"]));
            println!("{}", text(&answer["token"]));
        }
        TokenCommand::List => print_list(&answer),
    }
    Ok(())
}

fn body(create: &CreateArgs) -> NewToken {
    NewToken {
        name: create.name.clone(),
        role: create.role,
        scopes: (!create.scopes.is_empty()).then(|| create.scopes.iter().copied().collect()),
        owner: create.owner.clone(),
        expires_in_s: create.expires_in,
    }
}

fn url(args: &TokenArgs, control: &millrace_control::Config) -> anyhow::Result<String> {
    if let Some(url) = &args.url {
        return Ok(url.clone());
    }
    let running = control_url_in(&args.data)?;
    Ok(running.unwrap_or_else(|| format!("http://{}", reachable(control.listen))))
}

fn secret(args: &TokenArgs, control: &millrace_control::Config) -> anyhow::Result<Secret<String>> {
    if let Some(path) = &args.token_file {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        return Ok(Secret::new(text.trim().to_owned()));
    }
    if !control.admin_token.expose().is_empty() {
        return Ok(control.admin_token.clone());
    }
    let kept = admin_token_in(&args.data)?;
    let kept = kept.with_context(|| no_token(&args.data))?;
    Ok(Secret::new(kept))
}

fn no_token(data: &Path) -> String {
    format!(
        "no token to ask with: give --token-file, set MILLRACE_CONTROL_ADMIN_TOKEN_FILE, or --data DIR with an admin-token \
         (there is none in {})",
        data.display()
    )
}

/// Returns the answer as JSON, or its problem as an error.
fn read(answer: &Response) -> anyhow::Result<Value> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.is_success() {
        return Ok(body);
    }
    let detail = body["detail"].as_str().unwrap_or("no reason is given");
    anyhow::bail!("control answered {}: {detail}", answer.status)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn print_list(answer: &Value) {
    println!("{:26}  {:8}  {:9}  {:20}  NAME", "ID", "STATE", "ROLE", "EXPIRES");
    for token in answer["tokens"].as_array().into_iter().flatten() {
        let [id, state, role, expires, name] =
            ["id", "state", "role", "expires_at", "name"].map(|field| text(&token[field]));
        println!("{id:26}  {state:8}  {role:9}  {expires:20}  {name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_reads_a_number_with_its_unit() {
        for (text, expected) in [("600s", 600), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for text in ["", "90", "d", "-1d", "1.5h", "99999999999999999999d", "9é"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
