//! The binary as an operator runs it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millrace_testkit::process::Process;
use millrace_testkit::wait;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLRACE_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

async fn standalone(data: &Path) -> (Process, Value) {
    let any = "127.0.0.1:0";
    let mut command = command(&["standalone", "--rtmp", any, "--edge", any, "--control", any, "--data"]);
    command.arg(data);
    let ready = data.join("ready.json");
    // What a killed process left is not this one's.
    let _ = std::fs::remove_file(&ready);
    let process = Process::spawn(command, data.join("log")).unwrap();
    let ready = wait::some(LIMIT, async || serde_json::from_slice(&std::fs::read(&ready).ok()?).ok()).await;
    (process, ready)
}

#[tokio::test]
async fn token_is_made_listed_and_revoked_by_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, ready) = standalone(dir.path()).await;
    let data = dir.path().to_str().unwrap();
    let token = |args: &[&str]| {
        let output = command(&[&["token", "--data", data], args].concat()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let publisher =
        ["create", "--name", "Studio", "--role", "publisher", "--owner", "alice", "--expires-in", "90d"];
    let (made, secret, told) = token(&publisher);
    assert!(made, "{told}");
    let client = millrace_testkit::http::client();
    let me = format!("{}/api/v1/me", ready["control"].as_str().unwrap());
    let who = async || client.get(&me).bearer_auth(secret.trim()).send().await.unwrap();
    let identity: Value = who().await.json().await.unwrap();
    assert_eq!((identity["role"].as_str(), identity["owner"].as_str()), (Some("publisher"), Some("alice")));
    let id = secret.split('_').nth(1).unwrap();

    let (listed, list, _) = token(&["list"]);
    assert!(
        listed && list.contains(id) && list.contains("Studio") && !list.contains(secret.trim()),
        "{list}"
    );
    let narrowed = ["create", "--json", "--name", "Read", "--role", "admin", "--scope", "streams:read"];
    let answer: Value = serde_json::from_str(&token(&narrowed).1).unwrap();
    assert_eq!(answer["scopes"], json!(["streams:read"]));

    let (refused, _, reason) = token(&["create", "--name", "P", "--role", "publisher"]);
    assert!(!refused && reason.contains("control answered 422: owner must be given"), "{reason}");
    let (refused, _, reason) = token(&["create", "--name", "P", "--role", "root"]);
    assert!(
        !refused && reason.contains("is no role: use one of viewer, publisher, operator, admin"),
        "{reason}"
    );
    assert!(token(&["revoke", id]).0);
    assert_eq!(who().await.status(), 401);
    process.terminate();
    assert!(process.wait(LIMIT).await.unwrap().success());
    let (refused, _, reason) = token(&["list", "--url", ready["control"].as_str().unwrap()]);
    assert!(!refused && reason.contains("control was not asked"), "{reason}");
}

#[tokio::test]
async fn standalone_keeps_livestreams_and_token_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, ready) = standalone(dir.path()).await;
    let token = std::fs::read_to_string(dir.path().join("admin-token")).unwrap();
    let client = millrace_testkit::http::client();
    let url = format!("{}/api/v1/livestreams", ready["control"].as_str().unwrap());
    let request = client.post(&url).bearer_auth(token.trim()).json(&json!({"title": "Kept"}));
    let created: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(created["rtmp_url"], ready["rtmp"]);
    assert!(created["hls_url"].as_str().unwrap().starts_with(ready["edge"].as_str().unwrap()));
    process.kill();

    let (mut process, ready) = standalone(dir.path()).await;
    let id = created["id"].as_str().unwrap();
    let url = format!("{}/api/v1/livestreams/{id}/status", ready["control"].as_str().unwrap());
    let status = client.get(&url).bearer_auth(token.trim()).send().await.unwrap();
    assert_eq!(status.json::<Value>().await.unwrap()["status"], "scheduled");
    let health = format!("{}/readyz", ready["control"].as_str().unwrap());
    assert!(command(&["healthcheck", &health]).status().unwrap().success());

    let actors = format!("{}/actors", ready["control"].as_str().unwrap());
    assert_eq!(
        client.get(&actors).send().await.unwrap().status(),
        401,
        "actors are not shown without the token"
    );
    let listed: Value =
        client.get(&actors).bearer_auth(token.trim()).send().await.unwrap().json().await.unwrap();
    let listed: Vec<&Value> = listed["actors"].as_array().unwrap().iter().collect();
    for role in ["ingest", "transcode", "edge", "control"] {
        let report = |actor: &&&Value| actor["kind"] == "report" && actor["supervisor"] == role;
        assert_eq!(listed.iter().filter(report).count(), 1, "report of {role} in {listed:?}");
    }
    let hidden = client.get(format!("{}/actors", ready["edge"].as_str().unwrap())).send().await.unwrap();
    assert_eq!(hidden.status(), 404, "the port of viewers does not list actors");

    process.terminate();
    assert!(process.wait(LIMIT).await.unwrap().success());
    assert!(!dir.path().join("ready.json").exists());
    assert!(!command(&["healthcheck", &health]).status().unwrap().success());
}

#[test]
fn configuration_mistake_is_reported_in_one_line() {
    let output = command(&["check-config"]).env("MILLRACE_EDGE_LISTN", "x").output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("millrace: configuration: edge.listn: unknown key"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(command(&["check-config"]).output().unwrap().status.success());
}
