//! Bearer tokens of an outside issuer: with a shared secret and with public keys that the issuer changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use millrace_control::{Config, JwtAlgorithm};
use millrace_runtime::Secret;
use reqwest::{Method, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::common::{Backends, Control};

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_secs(30);

const SECRET: &str = "a-secret-of-the-issuer-that-is-long-enough";
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "millrace";

/// Encodes bytes as the parts of a JWT are (RFC 4648 §5, without padding).
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

/// A key of the issuer.
enum IssuerKey {
    Secret(&'static [u8]),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl IssuerKey {
    fn p256() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self::P256(key.unwrap())
    }

    fn ed25519() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_der(include_bytes!("rsa-key-of-tests.der")).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
        }
    }

    /// Returns the public key as an entry of a key set.
    fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Secret(secret) => json!({"kty": "oct", "kid": kid, "k": base64url(secret)}),
            Self::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": base64url(x), "y": base64url(y)})
            }
            Self::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(key.public_key().as_ref())})
            }
            Self::Rsa(key) => {
                let public: ring::rsa::PublicKeyComponents<Vec<u8>> = key.public_key().into();
                json!({"kty": "RSA", "kid": kid, "alg": "RS256", "n": base64url(&public.n), "e": base64url(&public.e)})
            }
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(secret) => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                ring::hmac::sign(&key, message).as_ref().to_vec()
            }
            Self::P256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm(), "kid": kid, "typ": "JWT"}), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let parts = [header, claims].map(|part| base64url(part.to_string().as_bytes())).join(".");
        let signature = base64url(&self.signature(parts.as_bytes()));
        format!("{parts}.{signature}")
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Returns good claims, with those of `changes` in their place; null takes one away.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now_s() + 600});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn config(algorithm: JwtAlgorithm) -> Config {
    Config {
        jwt_algorithm: Some(algorithm),
        jwt_issuer: Some(ISSUER.to_owned()),
        jwt_audience: Some(AUDIENCE.to_owned()),
        failed_auth_per_minute: 0,
        ..Config::default()
    }
}

async fn me(control: &Control, token: &str) -> (u16, Value) {
    let (status, me) = control.call_as(Some(token), Method::GET, "/api/v1/me", None).await;
    (status.as_u16(), me)
}

/// Returns the detail of the refusal of a token.
async fn refusal(control: &Control, token: &str) -> String {
    let (status, problem) = me(control, token).await;
    assert_eq!(status, 401, "{problem}");
    problem["detail"]
        .as_str()
        .unwrap()
        .trim_start_matches("the token of the issuer is not accepted: ")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn token_with_a_shared_secret_is_accepted_for_its_owner_and_refused_when_a_claim_is_wrong() {
    let config = Config { jwt_secret: Secret::new(SECRET.to_owned()), ..config(JwtAlgorithm::Hs256) };
    let control = Control::start_with(&Backends::embedded().await, config).await;
    let key = IssuerKey::Secret(SECRET.as_bytes());
    let alice = key.token("any", &claims(&json!({})));
    let (status, who) = me(&control, &alice).await;
    assert_eq!(status, 200, "{who}");
    let scopes = ["streams:read", "streams:write", "events:read", "webhooks:read", "webhooks:write"];
    assert_eq!(who, json!({"actor": "jwt:alice", "role": "publisher", "owner": "alice", "scopes": scopes}));
    let path = "/api/v1/livestreams";
    let created = control.call_as(Some(&alice), Method::POST, path, Some(json!({"title": "Hers"}))).await.1;
    assert_eq!(created["owner"], "alice");
    let bob = key.token("any", &claims(&json!({"sub": "bob", "aud": ["other", AUDIENCE]})));
    let own = format!("{path}/{}", created["id"].as_str().unwrap());
    assert_eq!(control.call_as(Some(&bob), Method::DELETE, &own, None).await.0, StatusCode::NOT_FOUND);
    let operator = key.token("any", &claims(&json!({"role": "operator"})));
    assert_eq!(me(&control, &operator).await.1["role"], "operator");

    let now = now_s();
    for (changes, detail) in [
        (json!({"exp": now - 31}), "it has expired"),
        (json!({"exp": null}), "it lacks the claim exp"),
        (json!({"exp": "tomorrow"}), "its claim exp has the wrong form"),
        (json!({"nbf": now + 90}), "it is not valid yet"),
        (json!({"iss": "https://other.example"}), "it is of another issuer"),
        (json!({"iss": null}), "it lacks the claim iss"),
        (json!({"aud": "other"}), "it is for another audience"),
        (json!({"aud": null}), "it lacks the claim aud"),
        (json!({"sub": null}), "it lacks the claim sub"),
    ] {
        assert_eq!(refusal(&control, &key.token("any", &claims(&changes))).await, detail, "{changes}");
    }
    for leeway in [json!({"exp": now - 5}), json!({"nbf": now + 20})] {
        assert_eq!(me(&control, &key.token("any", &claims(&leeway))).await.0, 200, "clocks differ a little");
    }
    let other = IssuerKey::Secret(b"another-secret-that-is-long-enough-too");
    assert_eq!(refusal(&control, &other.token("any", &claims(&json!({})))).await, "its signature is wrong");
    let unsigned = key.token_with(&json!({"alg": "none"}), &claims(&json!({})));
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    let wrong_algorithm = "its algorithm is not the configured one";
    let refused = refusal(&control, &unsigned).await;
    assert!([wrong_algorithm, "it is malformed"].contains(&refused.as_str()), "{refused}");
    let larger = key.token_with(&json!({"alg": "HS512"}), &claims(&json!({})));
    assert_eq!(refusal(&control, &larger).await, wrong_algorithm);
    assert_eq!(
        refusal(&control, &IssuerKey::p256().token("any", &claims(&json!({})))).await,
        wrong_algorithm
    );
    assert_eq!(refusal(&control, "a.b.c").await, "it is malformed");
    control.node.drain().await;
}

/// A server of key sets.
struct Issuer {
    url: String,
    set: watch::Sender<Value>,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (set, current) = watch::channel(keys);
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (answered, counted) = (status.clone(), asked.clone());
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match connection.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let body = json!({"keys": *current.borrow()}).to_string();
                let status = answered.load(Ordering::SeqCst);
                let answer = format!(
                    "HTTP/1.1 {status} S\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{body}",
                    body.len()
                );
                // The client may be gone.
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, set, status, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_issuer_are_read_again_for_an_unknown_key_and_seldom_enough() {
    let (first, second) = (IssuerKey::p256(), IssuerKey::p256());
    // A set may hold keys of other kinds: a secret in it is none for us.
    let stray = IssuerKey::Secret(SECRET.as_bytes());
    let issuer = Issuer::start(json!([first.jwk("one"), stray.jwk("stray"), {"kty": "new kind"}])).await;
    issuer.status.store(500, Ordering::SeqCst);
    let config = Config { jwt_jwks_url: Some(issuer.url.clone()), ..config(JwtAlgorithm::Es256) };
    let control = Control::start_with(&Backends::embedded().await, config).await;
    let (by_first, by_second) =
        (first.token("one", &claims(&json!({}))), second.token("two", &claims(&json!({}))));

    // Without keys the answer is "try again", not "refused".
    let (status, problem) = me(&control, &by_first).await;
    assert_eq!(status, 503, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("answered 500"), "{problem}");
    issuer.status.store(200, Ordering::SeqCst);
    millrace_testkit::wait::until(LIMIT, async || me(&control, &by_first).await.0 == 200).await;

    // Made-up key ids make control ask once in a while at most.
    let asked = issuer.asked();
    for number in 0..20 {
        let made_up = first.token(&format!("made-up-{number}"), &claims(&json!({})));
        assert_eq!(refusal(&control, &made_up).await, "the issuer has no such key");
    }
    assert!(issuer.asked() <= asked + 1, "{} readings", issuer.asked() - asked);

    // The issuer's public key as a secret: the algorithm is configured, the token does not choose it.
    let public = first.jwk("one").to_string().into_bytes().leak();
    let forged = IssuerKey::Secret(public).token("one", &claims(&json!({"role": "admin"})));
    assert_eq!(refusal(&control, &forged).await, "its algorithm is not the configured one");
    let by_stray = stray.token_with(&json!({"alg": "ES256", "kid": "stray"}), &claims(&json!({})));
    assert_eq!(refusal(&control, &by_stray).await, "the issuer has no such key");
    let swapped = second.token("one", &claims(&json!({})));
    assert_eq!(refusal(&control, &swapped).await, "its signature is wrong");

    // The issuer changes its key: the new one is accepted without a restart, the old one no more.
    issuer.set.send_replace(json!([second.jwk("two")]));
    millrace_testkit::wait::until(LIMIT, async || me(&control, &by_second).await.0 == 200).await;
    assert_eq!(refusal(&control, &by_first).await, "the issuer has no such key");
    let nameless = second.token_with(&json!({"alg": "ES256"}), &claims(&json!({})));
    assert_eq!(me(&control, &nameless).await.0, 200, "the only key needs no name");
    issuer.status.store(500, Ordering::SeqCst);
    assert_eq!(me(&control, &by_second).await.0, 200, "keys stay while the issuer is away");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_file_check_tokens_of_rsa_and_of_ed25519() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    for (algorithm, key) in
        [(JwtAlgorithm::Rs256, IssuerKey::rsa()), (JwtAlgorithm::EdDsa, IssuerKey::ed25519())]
    {
        std::fs::write(&path, json!({"keys": [key.jwk("one")]}).to_string()).unwrap();
        let config = Config {
            jwt_jwks_file: Some(path.clone()),
            jwt_role_claim: "realm_access.roles".to_owned(),
            ..config(algorithm)
        };
        let control = Control::start_with(&Backends::embedded().await, config).await;
        let roles = claims(&json!({"realm_access": {"roles": ["offline_access", "operator"]}}));
        let (status, who) = me(&control, &key.token("one", &roles)).await;
        assert_eq!((status, who["role"].as_str()), (200, Some("operator")), "{algorithm:?}: {who}");
        let mut forged = key.token("one", &roles);
        let (_, rest) = forged.split_once('.').unwrap();
        let header = base64url(json!({"alg": key.algorithm(), "kid": "one", "x": 1}).to_string().as_bytes());
        forged = format!("{header}.{rest}");
        assert_eq!(refusal(&control, &forged).await, "its signature is wrong", "{algorithm:?}");
        control.node.drain().await;
    }
}
