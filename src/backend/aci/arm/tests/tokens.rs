//! Tokens: where they come from, how long they are used, and how often they are asked for.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hyper::Method;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::{Instant, advance, sleep};

use super::super::Arm;
use super::super::error::ArmError;
use super::super::source::Source;
use super::super::token::Tokens;
use super::super::transport::Broken;
use super::{Answers, Azure, GROUP, Says, azure, breaks, http, refuses, says, secret, settings, token, within};
use crate::config::AciCredentials;

/// A client whose calls succeed, with these credentials and these answers to who asks for a token.
fn asking(
    credentials: AciCredentials,
    answers: impl Fn(&super::Seen, usize) -> Says + Send + Sync + 'static,
) -> (Arm, Arc<Azure>) {
    let azure = Arc::<Azure>::default();
    let calls: Answers = Box::new(|_, _| says(200, &json!({})));
    let http = http(&azure, calls, Box::new(answers));
    (Arm::over(http, &settings("http://127.0.0.1:1", credentials), None), azure)
}

async fn call(arm: &Arm) -> Result<Option<Value>, ArmError> {
    arm.get(GROUP, &[], within(600)).await
}

/// The tokens that the calls bore.
fn borne(azure: &Azure) -> Vec<String> {
    azure.calls.lock().unwrap().iter().map(|call| call.header("authorization").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn from_a_secret() {
    let (arm, azure) = asking(secret(), |_, number| token(number));
    call(&arm).await.unwrap();
    let asked = azure.tokens.lock().unwrap();
    assert_eq!(
        (&asked[0].method, asked[0].url.to_string().as_str()),
        (&Method::POST, "http://127.0.0.1:2/dir/oauth2/v2.0/token")
    );
    assert_eq!(
        asked[0].body,
        "grant_type=client_credentials&client_id=app&scope=https%3A%2F%2Fmanagement.azure.com%2F.default\
         &client_secret=s3cr%26t+%2B1"
    );
    assert_eq!(asked[0].header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(borne(&azure), ["Bearer t0"]);
}

#[tokio::test(start_paused = true)]
async fn from_a_federated_token_that_is_read_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first.x.y\n").unwrap();
    let credentials = AciCredentials::FederatedToken {
        authority: "http://127.0.0.1:2/".to_owned(),
        tenant: "dir".to_owned(),
        client: "app".to_owned(),
        file: file.clone(),
    };
    let (arm, azure) = asking(credentials, |_, _| says(200, &json!({"access_token": "t", "expires_in": 1})));
    call(&arm).await.unwrap();
    std::fs::write(&file, "second").unwrap();
    advance(Duration::from_secs(2)).await;
    call(&arm).await.unwrap();
    let bodies: Vec<String> = azure.tokens.lock().unwrap().iter().map(|asked| asked.body.clone()).collect();
    assert_eq!(bodies.len(), 2);
    for (body, assertion) in bodies.iter().zip(["first.x.y", "second"]) {
        let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
        assert!(body.ends_with(&format!("&client_assertion_type={kind}&client_assertion={assertion}")), "{body}");
    }
    std::fs::remove_file(&file).unwrap();
    advance(Duration::from_secs(2)).await;
    let error = call(&arm).await.unwrap_err();
    assert!(matches!(error, ArmError::Unauthorised { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn from_the_metadata_services() {
    let imds = |client: Option<&str>| AciCredentials::ManagedIdentity {
        imds: "http://127.0.0.1:2".to_owned(),
        client: client.map(str::to_owned),
    };
    let app = AciCredentials::AppService {
        endpoint: "http://127.0.0.1:2/msi/token".to_owned(),
        header: SecretString::from("h3ader"),
        client: Some("app".to_owned()),
    };
    let resource = "resource=https%3A%2F%2Fmanagement.azure.com%2F";
    let metadata = "http://127.0.0.1:2/metadata/identity/oauth2/token?api-version=2018-02-01";
    for (credentials, url, header) in [
        (imds(None), format!("{metadata}&{resource}"), ("metadata", "true")),
        (imds(Some("app")), format!("{metadata}&{resource}&client_id=app"), ("metadata", "true")),
        (
            app,
            format!("http://127.0.0.1:2/msi/token?api-version=2019-08-01&{resource}&client_id=app"),
            ("x-identity-header", "h3ader"),
        ),
    ] {
        let (arm, azure) = asking(credentials, |_, _| says(200, &json!({"access_token": "t", "expires_in": "86399"})));
        call(&arm).await.unwrap();
        let asked = azure.tokens.lock().unwrap();
        assert_eq!((&asked[0].method, asked[0].url.to_string()), (&Method::GET, url));
        assert_eq!((asked[0].header(header.0), asked[0].body.as_str()), (header.1, ""));
    }
}

#[tokio::test(start_paused = true)]
async fn lifetimes_are_numbers_or_text() {
    let in_an_hour = Timestamp::now().as_second() + 3600;
    for (answer, life) in [
        (json!({"access_token": "t", "expires_in": 3600}), 3600),
        (json!({"access_token": "t", "expires_in": "3600", "expires_on": "1"}), 3600),
        (json!({"access_token": "t", "expires_on": in_an_hour.to_string()}), 3600),
        (json!({"access_token": "t", "expires_on": in_an_hour}), 3600),
        (json!({"access_token": "t"}), 600),
        (json!({"access_token": "t", "expires_in": "soon"}), 600),
    ] {
        let text = answer.to_string();
        let (arm, azure) = asking(secret(), move |_, _| says(200, &answer));
        call(&arm).await.unwrap();
        advance(Duration::from_secs(life - 310)).await;
        call(&arm).await.unwrap();
        assert_eq!(azure.token_count(), 1, "{text}");
        advance(Duration::from_secs(320)).await;
        call(&arm).await.unwrap();
        assert_eq!(azure.token_count(), 2, "{text}");
    }
    for nothing in [json!({}), json!({"access_token": ""}), json!({"access_token": 7}), json!({"access_token": "a\nb"})]
    {
        let (arm, _) = asking(secret(), move |_, _| says(200, &nothing));
        assert!(matches!(call(&arm).await, Err(ArmError::Unauthorised { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_callers_ask_once() {
    let (arm, azure) = asking(secret(), |_, number| token(number).late(Duration::from_secs(3)));
    let all = join_all((0..50).map(|_| call(&arm))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!((azure.token_count(), azure.count()), (1, 50));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_takes_nobody_with_it() {
    let (arm, azure) = asking(secret(), |_, number| token(number).late(Duration::from_secs(10)));
    let impatient = arm.get::<Value>(GROUP, &[], within(1));
    let dropped = tokio::time::timeout(Duration::from_secs(2), call(&arm));
    let (impatient, dropped, patient) = tokio::join!(impatient, dropped, call(&arm));
    assert!(matches!(impatient, Err(ArmError::Deadline { .. })));
    assert!(dropped.is_err());
    patient.unwrap();
    assert_eq!(azure.token_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_early_while_nobody_waits() {
    let (arm, azure) = asking(secret(), |_, number| match number {
        0 => token(0),
        1 => refuses(400, "invalid_client"),
        _ => token(number).late(Duration::from_secs(5)),
    });
    call(&arm).await.unwrap();
    advance(Duration::from_secs(3310)).await;
    // The first renewal fails, and the old one is good.
    for _ in 0..5 {
        call(&arm).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(azure.token_count(), 2);
    advance(Duration::from_secs(30)).await;
    let begun = Instant::now();
    call(&arm).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for the renewal");
    sleep(Duration::from_secs(6)).await;
    call(&arm).await.unwrap();
    assert_eq!(azure.token_count(), 3);
    let borne = borne(&azure);
    assert!(borne[..7].iter().all(|token| token == "Bearer t0") && borne[7] == "Bearer t2", "{borne:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_with_401_once_more_with_a_fresh_one() {
    let (arm, azure) = azure(|seen, _| match seen.header("authorization") {
        "Bearer t0" => refuses(401, "ExpiredAuthenticationToken").with("www-authenticate", "Bearer"),
        _ => says(200, &json!({})),
    });
    // All were refused the same token, and one asks for the next.
    let all = join_all((0..50).map(|_| call(&arm))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(azure.token_count(), 2);

    let (arm, azure) = super::azure(|_, _| refuses(401, "InvalidAuthenticationToken"));
    let error = call(&arm).await.unwrap_err();
    assert!(matches!(&error, ArmError::Unauthorised { .. }), "{error}");
    assert_eq!((azure.count(), azure.token_count()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_tokens_is_asked_again_if_it_may_help() {
    let imds = || AciCredentials::ManagedIdentity { imds: "http://127.0.0.1:2".to_owned(), client: None };
    type Trouble = fn() -> Says;
    let everywhere: [Trouble; 4] = [
        || says(429, &Value::Null).with("retry-after", "3"),
        || says(500, &Value::Null),
        || says(503, &Value::Null).text("<html>"),
        || breaks(Broken::Network("connection refused".to_owned())),
    ];
    for trouble in everywhere {
        for credentials in [secret(), imds()] {
            let (arm, azure) = asking(credentials, move |_, number| if number < 2 { trouble() } else { token(number) });
            call(&arm).await.unwrap();
            assert_eq!(azure.token_count(), 3);
        }
    }
    let not_yet: [Trouble; 2] = [|| says(404, &Value::Null), || says(410, &Value::Null)];
    for trouble in not_yet {
        let (arm, azure) = asking(imds(), move |_, number| if number < 2 { trouble() } else { token(number) });
        call(&arm).await.unwrap();
        assert_eq!(azure.token_count(), 3);
        let (arm, azure) = asking(secret(), move |_, _| trouble());
        call(&arm).await.unwrap_err();
        assert_eq!(azure.token_count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_by_its_code_alone() {
    let description = "AADSTS7000215: Invalid client secret provided. Trace ID: 1234 Correlation ID: 5678";
    let answer = json!({"error": "invalid_client", "error_description": description, "error_codes": [7_000_215], "trace_id": "1234"});
    let (arm, azure) = asking(secret(), move |_, _| says(401, &answer));
    let error = arm.token_works(within(5)).await.unwrap_err();
    assert_eq!(error.to_string(), "not authorised: invalid_client AADSTS7000215");
    assert_eq!((azure.token_count(), azure.count()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_printed() {
    let azure = Arc::<Azure>::default();
    let http = http(
        &azure,
        Box::new(|_, _| says(200, &json!({}))),
        Box::new(|_, _| says(200, &json!({"access_token": "t0ken", "expires_in": 3600}))),
    );
    let source = Source::new(secret(), "https://management.azure.com".to_owned());
    let printed = format!("{source:?}");
    assert!(printed.contains("app") && !printed.contains("s3cr&t"), "{printed}");
    let tokens = Tokens::new(source, http);
    let token = tokens.get(within(5)).await.unwrap();
    assert_eq!(token.header.to_str().unwrap(), "Bearer t0ken");
    let printed = format!("{token:?}");
    assert!(!printed.contains("t0ken"), "{printed}");
    let arm = Arm::over(
        super::http(&azure, Box::new(|_, _| says(200, &json!({}))), Box::new(|_, n| super::token(n))),
        &settings("http://127.0.0.1:1", secret()),
        None,
    );
    assert!(!format!("{arm:?}").contains("s3cr&t"));
}
