//! What an answer means: by its code where that is known, whatever the status says.

use serde_json::json;

use super::super::error::{ArmError, Refusal};

fn reason(status: u16, body: &str) -> &'static str {
    ArmError::of(Refusal::read(status, body.as_bytes())).reason()
}

#[test]
fn kinds_by_code_and_by_status() {
    for (status, code, kind) in [
        (409, "ContainerGroupTransitioning", "transitioning"),
        (409, "ShareBeingDeleted", "share_being_deleted"),
        (409, "RegistryErrorResponse", "registry_error"),
        (409, "ServiceUnavailable", "no_capacity"),
        (503, "ServiceUnavailable", "unreachable"),
        (409, "InvalidResourceLocation", "conflict"),
        (400, "InaccessibleImage", "inaccessible_image"),
        (400, "DnsNameLabelAlreadyTaken", "dns_label_taken"),
        (409, "DnsNameLabelAlreadyTaken", "dns_label_taken"),
        (500, "DnsNameLabelAlreadyTaken", "dns_label_taken"),
        (400, "ContainerGroupQuotaReached", "quota_reached"),
        (400, "InvalidContainerGroupUpdate", "invalid_update"),
        (400, "InvalidDnsNameLabel", "refused"),
        (401, "InvalidAuthenticationToken", "unauthorised"),
        (403, "AuthorizationFailed", "forbidden"),
        (404, "ResourceGroupNotFound", "not_found"),
        (405, "MethodNotAllowed", "refused"),
        (408, "X", "unreachable"),
        (429, "TooManyRequests", "throttled"),
        (500, "InternalServerError", "unreachable"),
        (501, "NotImplemented", "refused"),
        (302, "", "refused"),
    ] {
        let body = json!({"error": {"code": code, "message": "m"}}).to_string();
        assert_eq!(reason(status, &body), kind, "{status} {code}");
    }
}

#[test]
fn bodies_of_any_kind() {
    for (body, shown) in [
        ("", "status 502 without a message"),
        ("<html><h1>502 Bad Gateway</h1></html>", "status 502 without a message"),
        ("null", "status 502 without a message"),
        ("[1]", "status 502 without a message"),
        (r#"{"error":"invalid_client"}"#, "status 502 without a message"),
        (r#"{"error":{"code":"A","message":"b\r\nc\u0000"}}"#, "A: b  c"),
        (r#"{"code":"A","message":"b"}"#, "A: b"),
        (r#"{"error":{"code":7,"message":{}}}"#, "status 502 without a message"),
    ] {
        let refusal = Refusal::read(502, body.as_bytes());
        assert_eq!(refusal.to_string(), shown, "{body}");
    }
    let long = json!({"error": {"code": "A", "message": "ü".repeat(9000)}}).to_string();
    assert_eq!(Refusal::read(400, long.as_bytes()).message, "ü".repeat(500));
    let deep = json!({"error": {"code": "A", "message": "m", "target": "t",
        "details": (0..50).map(|n| json!({"code": format!("D{n}"), "message": "x"})).collect::<Vec<_>>()}});
    let refusal = Refusal::read(400, deep.to_string().as_bytes());
    assert_eq!((refusal.target.as_deref(), refusal.details.len()), (Some("t"), 8));
}

#[test]
fn a_known_code_behind_the_first_counts() {
    let body = json!({"error": {"code": "DeploymentFailed", "message": "m",
        "details": [{"code": "ContainerGroupQuotaReached", "message": "q"}]}});
    assert_eq!(reason(400, &body.to_string()), "quota_reached");
}

#[test]
fn an_operation_that_failed_by_its_events_alone() {
    let document = json!({"id": "/x", "status": "Failed", "properties": {"events": [
        {"name": "Pulling", "message": "pulling image"},
        {"name": "InsufficientCapacity.", "message": "not available in the location 'uksouth'"},
    ]}});
    let error = ArmError::of(Refusal::of_operation(200, "Failed", &document));
    assert_eq!(error.reason(), "no_capacity");
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.message, "not available in the location 'uksouth'");
    assert_eq!(refusal.events.len(), 2);
    assert_eq!(error.code(), "Failed");

    let plain = ArmError::of(Refusal::of_operation(200, "Canceled", &json!({"status": "Canceled"})));
    assert_eq!(plain.reason(), "operation_failed");
    assert_eq!(plain.to_string(), "Canceled: the operation ended as Canceled");

    let told = json!({"status": "Failed", "error": {"code": "Odd", "message": "m"}});
    let told = ArmError::of(Refusal::of_operation(200, "Failed", &told));
    assert_eq!((told.reason(), told.code()), ("operation_failed", "Odd"));
}
