//! What every call must have, resource groups, and lists.

use super::*;

#[tokio::test]
async fn every_call_says_who_it_is_and_which_version_it_speaks() {
    let scene = Scene::new().await;
    let at = address(scene.double.endpoint());
    let path = format!("/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-east");
    raw(at, "GET", &versioned(&path), &usual(&scene.token), "").await.expect("an answer").expect(200);
    scene.double.assert_clean();
    let bare = [("authorization", format!("Bearer {}", scene.token))];
    raw(at, "GET", &versioned(&path), &bare, "").await.expect("an answer").expect(200);
    let violations = scene.double.take_violations();
    assert!(violations.iter().any(|text| text.contains("User-Agent")), "{violations:?}");
    assert!(violations.iter().any(|text| text.contains("request-id")), "{violations:?}");
    assert!(violations.iter().any(|text| text.contains("Content-Type")), "{violations:?}");
    let answer = raw(at, "GET", &path, &usual(&scene.token), "").await.expect("an answer");
    refused(&answer, 400, "MissingApiVersionParameter");
    refused(&scene.get(&format!("{}?api-version=2019-12-01", group("a"))).await, 400, "InvalidApiVersionParameter");
    scene.get(&format!("{path}?api-version=2021-04-01&api-version=2021-04-01")).await.expect(200);
    let violations = scene.double.take_violations();
    assert!(violations.iter().any(|text| text.contains("twice")), "{violations:?}");
    let plain: Vec<_> = usual(&scene.token).into_iter().filter(|(name, _)| *name != "content-type").collect();
    let answer = raw(at, "PUT", &versioned(&group("a")), &plain, "{}").await.expect("an answer");
    refused(&answer, 415, "UnsupportedMediaType");
    let answer = raw(at, "PUT", &versioned(&group("a")), &usual(&scene.token), "{").await.expect("an answer");
    refused(&answer, 400, "InvalidRequestContent");
    refused(&scene.call("PUT", &group("a"), None).await, 400, "MissingContent");
    // hyper says nothing of the length of an empty body, and the front door wants it.
    let answer = raw(at, "POST", &versioned(&format!("{}/stop", group("a"))), &usual(&scene.token), "").await;
    assert_eq!(answer.expect("an answer").status.as_u16(), 411);
    scene.get("/subscriptions/nobody/resourcegroups").await.expect(404);
    refused(&scene.get(&format!("/subscriptions/{SUBSCRIPTION}/nothing")).await, 404, "InvalidResourceType");
    assert!(!scene.double.take_violations().is_empty());
}

#[tokio::test]
async fn calls_are_recorded_without_the_token() {
    let scene = Scene::new().await;
    scene.put(&group("a"), &one("nginx:1")).await.expect(201);
    let heard = scene.double.take_requests();
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].method.as_str(), heard[0].status), ("PUT", 201));
    assert_eq!(heard[0].body["location"], "eastus");
    assert!(!format!("{heard:?}").contains(&scene.token));
    assert_eq!(scene.double.count("PUT", "*/containergroups/*"), 0);
}

#[tokio::test]
async fn resource_groups_are_made_and_seen() {
    let scene = Scene::new().await;
    let path = format!("/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-new");
    scene.call("HEAD", &path, None).await.expect(404);
    refused(&scene.get(&path).await, 404, "ResourceGroupNotFound");
    let wanted = json!({"location": "East US", "tags": {"a": "b"}});
    scene.put(&path, &wanted).await.expect(201);
    scene.put(&path, &wanted).await.expect(200);
    scene.call("HEAD", &path, None).await.expect(204);
    assert_eq!(scene.get(&path).await.expect(200)["location"], "eastus");
    refused(&scene.put(&path, &json!({"location": "westeurope"})).await, 409, "InvalidResourceGroupLocation");
    refused(&scene.put(&path, &json!({"location": "mars"})).await, 400, "LocationNotAvailableForResourceGroup");
    refused(&scene.get(&group("a").replace("rg-east", "rg-none")).await, 404, "ResourceGroupNotFound");
    scene.call("DELETE", &path, None).await.expect(200);
    scene.call("HEAD", &path, None).await.expect(404);
    scene.double.assert_clean();
}

#[tokio::test]
async fn lists_come_in_pages_and_without_what_is_going_on() {
    let scene = Scene::new().await;
    for name in ["a", "b", "c"] {
        scene.up(name, &one("nginx:1")).await;
    }
    let list = group("");
    let first = scene.get(list.trim_end_matches('/')).await.expect(200);
    assert_eq!(first["value"].as_array().map(Vec::len), Some(2));
    assert!(first["value"][0]["properties"]["instanceView"].is_null());
    assert!(first["value"][0]["properties"]["containers"][0]["properties"]["instanceView"].is_null());
    let second = scene.follow(first["nextLink"].as_str().expect("a link")).await.expect(200);
    assert_eq!(second["value"].as_array().map(Vec::len), Some(1));
    assert!(second["nextLink"].is_null());
    let whole = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerInstance/containerGroups");
    scene.double.set(|settings| settings.page = 10);
    assert_eq!(scene.get(&whole).await.expect(200)["value"].as_array().map(Vec::len), Some(3));
    scene.double.set(|settings| (settings.page, settings.next_links) = (1, Some("http://127.0.0.1:1".to_owned())));
    let link = scene.get(&whole).await.expect(200)["nextLink"].clone();
    assert!(link.as_str().is_some_and(|link| link.starts_with("http://127.0.0.1:1/")), "{link}");
    scene.double.assert_clean();
}

#[tokio::test]
async fn resources_are_found_by_their_tag() {
    let scene = Scene::new().await;
    scene.put(&group("a"), &one("nginx:1")).await.expect(201);
    scene.double.plant("rg-west", "old", "westeurope", &json!({"managed-by": "another"}));
    let find = async |filter: &str| {
        let filter = filter.replace(' ', "%20").replace('\'', "%27");
        scene.get(&format!("/subscriptions/{SUBSCRIPTION}/resources?$filter={filter}")).await
    };
    let names = |answer: &Answer| -> Vec<Value> {
        answer.expect(200)["value"].as_array().expect("a list").iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names(&find("tagName eq 'managed-by' and tagValue eq 'test'").await), ["a"]);
    assert_eq!(names(&find("tagName eq 'managed-by'").await), ["a", "old"]);
    assert_eq!(names(&find("resourceType eq 'Microsoft.Storage/storageAccounts'").await), ["steast", "stwest"]);
    scene.double.assert_clean();
    let mixed = find("tagName eq 'managed-by' and resourceType eq 'x'").await;
    refused(&mixed, 400, "InvalidFilterInQueryString");
    scene.double.set(|settings| settings.delays.index = 600_000);
    assert_eq!(names(&find("tagName eq 'managed-by'").await), Vec::<Value>::new());
    scene.double.advance(STEP);
    assert_eq!(names(&find("tagName eq 'managed-by'").await), ["a", "old"]);
}

#[tokio::test]
async fn locations_tell_usages_capabilities_and_cached_images() {
    let scene = Scene::new().await;
    scene.up("a", &one("nginx:1")).await;
    let at = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerInstance/locations/eastus");
    let usages = scene.get(&format!("{at}/usages")).await.expect(200);
    assert_eq!(usages["value"][0]["name"]["value"], "ContainerGroups");
    assert_eq!((&usages["value"][0]["currentValue"], &usages["value"][0]["limit"]), (&json!(1), &json!(100)));
    assert_eq!(usages["value"][1]["currentValue"], json!(1.0));
    let capabilities = scene.get(&format!("{at}/capabilities")).await.expect(200);
    assert_eq!(capabilities["value"][0]["capabilities"]["maxCpu"], json!(4.0));
    assert!(scene.get(&format!("{at}/cachedImages")).await.expect(200)["nextLink"].is_string());
    scene.get(&at.replace("eastus", "mars/usages")).await.expect(400);
    scene.double.assert_clean();
}
