//! Where calls go, and where they never go.

use std::collections::BTreeMap;

use hyper::Method;

use super::super::call::Endpoint;
use super::super::pace::Lane;
use super::GROUP;

fn endpoint(url: &str) -> Endpoint {
    let regions = [("rg-1".to_owned(), "eastus".to_owned())];
    Endpoint::new(url, "2025-09-01", BTreeMap::from(regions))
}

#[test]
fn each_provider_has_its_version() {
    let endpoint = endpoint("https://management.azure.com/");
    let storage = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a";
    for (path, query, url) in [
        (GROUP, vec![], format!("https://management.azure.com{GROUP}?api-version=2025-09-01")),
        (storage, vec![], format!("https://management.azure.com{storage}?api-version=2023-05-01")),
        (
            "/subscriptions/s/resources",
            vec![("$filter", "tagName eq 'a+b' and tagValue eq 'ü'")],
            "https://management.azure.com/subscriptions/s/resources?api-version=2021-04-01\
             &$filter=tagName%20eq%20%27a%2Bb%27%20and%20tagValue%20eq%20%27%C3%BC%27"
                .to_owned(),
        ),
        (
            "/subscriptions/s/resourcegroups/a?b#c d",
            vec![],
            "https://management.azure.com/subscriptions/s/resourcegroups/a%3Fb%23c%20d?api-version=2021-04-01"
                .to_owned(),
        ),
    ] {
        assert_eq!(endpoint.call(Method::GET, path, &query, None).unwrap().url.to_string(), url);
    }
    for bad in ["subscriptions/s", "", "/subscriptions/../x", "/a/./b", "https://elsewhere/x"] {
        assert!(endpoint.call(Method::GET, bad, &[], None).is_err(), "{bad}");
    }
}

#[test]
fn only_what_is_of_the_endpoint_is_followed() {
    let cloud = endpoint("https://management.azure.com");
    for (url, own) in [
        ("https://management.azure.com/a?b=c", Some("https://management.azure.com/a?b=c")),
        ("HTTPS://Management.Azure.com:443/a", Some("https://management.azure.com/a")),
        ("/a?b=c", Some("https://management.azure.com/a?b=c")),
        ("//elsewhere/a", None),
        ("http://management.azure.com/a", None),
        ("https://management.azure.com:8443/a", None),
        ("https://management.azure.com.evil.example/a", None),
        ("https://management.azure.com@evil.example/a", None),
        ("https://user@management.azure.com/a", None),
        ("https://169.254.169.254/metadata", None),
        ("ftp://management.azure.com/a", None),
        ("a", None),
        ("", None),
    ] {
        assert_eq!(cloud.own(url).map(|url| url.to_string()).as_deref(), own, "{url}");
    }
    let here = endpoint("http://127.0.0.1:8000/arm");
    assert_eq!(here.own("http://localhost:8000/arm/x").unwrap().to_string(), "http://127.0.0.1:8000/arm/x");
    assert!(here.own("http://localhost:8001/x").is_none());
    let call = here.call(Method::GET, "/subscriptions/s", &[], None).unwrap();
    assert_eq!(call.url.path(), "/arm/subscriptions/s");
}

#[test]
fn tokens_are_for_the_cloud_of_the_endpoint() {
    for (url, audience) in [
        ("https://management.azure.com", "https://management.azure.com"),
        ("https://management.chinacloudapi.cn/", "https://management.chinacloudapi.cn"),
        ("http://127.0.0.1:9", "https://management.azure.com"),
        ("https://[::1]:9", "https://management.azure.com"),
        ("http://localhost:9", "https://management.azure.com"),
    ] {
        assert_eq!(endpoint(url).audience(), audience, "{url}");
    }
}

#[test]
fn only_groups_have_write_limits() {
    let endpoint = endpoint("https://management.azure.com");
    let elsewhere = GROUP.replace("Rg-1", "other");
    let stop = format!("{GROUP}/stop");
    for (method, path, lane) in [
        (Method::GET, GROUP, Lane::Read),
        (Method::PUT, GROUP, Lane::Create("eastus".to_owned())),
        (Method::DELETE, GROUP, Lane::Delete("eastus".to_owned())),
        (Method::PATCH, GROUP, Lane::Write),
        (Method::PUT, &elsewhere, Lane::Create(String::new())),
        (Method::POST, &stop, Lane::Write),
        (Method::PUT, "/subscriptions/s/resourcegroups/rg-1", Lane::Write),
        (Method::HEAD, "/subscriptions/s/resourcegroups/rg-1", Lane::Read),
    ] {
        assert_eq!(endpoint.call(method.clone(), path, &[], None).unwrap().lane, lane, "{method} {path}");
    }
}
