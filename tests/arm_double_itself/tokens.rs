//! Who may call, and how long.

use super::arm_double::{ASSERTION, IDENTITY_HEADER};
use super::*;

async fn ask(double: &ArmDouble, form: &str) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    raw(address(double.authority()), "POST", &path, &headers, form).await.expect("the authority answers")
}

const SCOPE: &str = "scope=https%3A%2F%2Fmanagement.azure.com%2F.default";

#[tokio::test]
async fn an_application_proves_itself_with_a_secret_or_an_assertion() {
    let double = ArmDouble::start().await;
    let start = format!("grant_type=client_credentials&client_id={CLIENT}&{SCOPE}");
    let assertion = format!(
        "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={ASSERTION}"
    );
    let body = ask(&double, &format!("{start}&client_secret={SECRET}")).await.expect(200);
    assert!(body["expires_in"].is_number(), "{body}");
    ask(&double, &format!("{start}&{assertion}")).await.expect(200);
    double.assert_clean();
    let wrong = ask(&double, &format!("{start}&client_secret=no")).await.expect(401);
    assert_eq!(wrong["error"], "invalid_client");
    let both = ask(&double, &format!("{start}&client_secret={SECRET}&{assertion}")).await.expect(401);
    assert_eq!(both["error"], "invalid_client");
    let scope =
        ask(&double, &format!("grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}&scope=x")).await;
    assert_eq!(scope.expect(400)["error"], "invalid_scope");
    let grant = ask(&double, &format!("grant_type=password&client_id={CLIENT}")).await.expect(400);
    assert_eq!(grant["error"], "unsupported_grant_type");
    let client = ask(&double, "grant_type=client_credentials&client_id=stranger").await.expect(400);
    assert_eq!(client["error"], "unauthorized_client");
    assert_eq!(double.token_requests(), 7);
}

#[tokio::test]
async fn the_metadata_service_wants_its_header_and_tells_numbers_as_text() {
    let double = ArmDouble::start().await;
    let path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F";
    let ask = async |path: &str, headers: &[(&'static str, String)]| {
        raw(address(double.imds()), "GET", path, headers, "").await.expect("it answers")
    };
    let metadata = [("metadata", "true".to_owned())];
    ask(path, &[]).await.expect(400);
    let body = ask(path, &metadata).await.expect(200);
    assert!(body["expires_in"].is_string() && body["expires_on"].is_string(), "{body}");
    ask(&format!("{path}&client_id=stranger"), &metadata).await.expect(400);
    let service = path.replace("/metadata/identity/oauth2", "/msi").replace("2018-02-01", "2019-08-01");
    ask(&service, &metadata).await.expect(401);
    let body = ask(&service, &[("x-identity-header", IDENTITY_HEADER.to_owned())]).await.expect(200);
    assert!(body["expires_in"].is_null() && body["expires_on"].is_string(), "{body}");
}

#[tokio::test]
async fn tokens_are_checked_and_expire() {
    let scene = Scene::new().await;
    let path = format!("/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-east");
    scene.get(&path).await.expect(200);
    scene.double.expire_tokens();
    let answer = scene.get(&path).await;
    refused(&answer, 401, "ExpiredAuthenticationToken");
    assert!(header(&answer, "www-authenticate").contains("authorization_uri"));
    let stranger = Scene { token: "made-up".to_owned(), ..Scene::new().await };
    refused(&stranger.get(&path).await, 401, "InvalidAuthenticationToken");
    let double = ArmDouble::start().await;
    let token = token(&double).await;
    let scene = Scene { double, token };
    scene.double.advance(Duration::from_secs(3600));
    refused(&scene.get(&path).await, 401, "ExpiredAuthenticationToken");
    let headers: Vec<_> = usual("").into_iter().filter(|(name, _)| *name != "authorization").collect();
    let answer =
        raw(address(scene.double.endpoint()), "GET", &versioned(&path), &headers, "").await.expect("an answer");
    refused(&answer, 401, "AuthenticationFailed");
    scene.double.change_secret("another");
    let form = format!("grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}&{SCOPE}");
    ask(&scene.double, &form).await.expect(401);
}
