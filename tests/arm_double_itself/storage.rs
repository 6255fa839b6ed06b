//! Storage accounts, keys, shares, and groups that mount them.

use super::*;

fn account(name: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-east/providers/Microsoft.Storage/storageAccounts/{name}")
}

async fn key(scene: &Scene) -> String {
    let keys = scene.post(&format!("{}/listKeys", account("steast"))).await.expect(200);
    keys["keys"][0]["value"].as_str().expect("a key").to_owned()
}

fn mounting(key: &str) -> Value {
    let mut wanted = one("nginx:1");
    wanted["properties"]["volumes"] = json!([{"name": "store", "azureFile": {"shareName": "data", "storageAccountName": "steast", "storageAccountKey": key}}]);
    wanted["properties"]["containers"][0]["properties"]["volumeMounts"] =
        json!([{"name": "store", "mountPath": "/data"}]);
    wanted
}

#[tokio::test]
async fn accounts_are_made_and_give_their_keys() {
    let scene = Scene::new().await;
    let wanted = json!({"location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"});
    let answer = scene.put(&account("stnew"), &wanted).await;
    answer.expect(202);
    let link = header(&answer, "location");
    scene.follow(&link).await.expect(202);
    refused(&scene.post(&format!("{}/listKeys", account("stnew"))).await, 409, "StorageAccountIsNotProvisioned");
    scene.double.advance(STEP);
    scene.follow(&link).await.expect(200);
    scene.put(&account("stnew"), &wanted).await.expect(200);
    let keys = scene.post(&format!("{}/listKeys", account("stnew"))).await.expect(200);
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2));
    let new = scene
        .call("POST", &format!("{}/regenerateKey", account("stnew")), Some(&json!({"keyName": "key1"})))
        .await
        .expect(200);
    assert_ne!(new["keys"][0], keys["keys"][0]);
    assert_eq!(new["keys"][1], keys["keys"][1]);
    let list = scene.get(account("").trim_end_matches('/')).await.expect(200);
    assert_eq!(list["value"].as_array().map(Vec::len), Some(2));
    refused(&scene.put(&account("stwest"), &wanted).await, 409, "StorageAccountAlreadyTaken");
    refused(&scene.get(&account("stnone")).await, 404, "ResourceNotFound");
    scene.double.assert_clean();
    refused(&scene.put(&account("st-new"), &wanted).await, 400, "AccountNameInvalid");
    refused(&scene.put(&account("stnew2"), &json!({"location": "eastus"})).await, 400, "InvalidRequestContent");
}

#[tokio::test]
async fn shares_come_and_go() {
    let scene = Scene::new().await;
    let wanted = json!({"properties": {"shareQuota": 25, "metadata": {"tenant": "a"}}});
    let made = scene.put(&share("data"), &wanted).await.expect(201);
    assert_eq!(
        (&made["properties"]["shareQuota"], &made["properties"]["metadata"]["tenant"]),
        (&json!(25), &json!("a"))
    );
    scene.put(&share("data"), &wanted).await.expect(200);
    let more = scene.call("PATCH", &share("data"), Some(&json!({"properties": {"shareQuota": 30}}))).await.expect(200);
    assert_eq!(more["properties"]["shareQuota"], 30);
    scene.double.fill_share("steast", "data", 77);
    let stats = scene.get(&format!("{}?$expand=stats", share("data"))).await.expect(200);
    assert_eq!(
        (&stats["properties"]["shareUsageBytes"], &stats["properties"]["metadata"]["tenant"]),
        (&json!(77), &json!("a"))
    );
    assert!(scene.get(&share("data")).await.expect(200)["properties"]["shareUsageBytes"].is_null());
    for name in ["data2", "data3"] {
        scene.put(&share(name), &json!({})).await.expect(201);
    }
    let list = scene.get(share("").trim_end_matches('/')).await.expect(200);
    assert!(list["nextLink"].is_string(), "{list}");
    assert!(list["value"][0]["properties"].get("metadata").is_none(), "{list}");
    let path = share("");
    let strange = format!("{}?$expand=metadata", path.trim_end_matches('/'));
    refused(&scene.get(&strange).await, 400, "InvalidQueryParameterValue");
    assert_eq!(scene.double.take_violations().len(), 1);
    scene.call("DELETE", &share("data"), None).await.expect(200);
    scene.call("DELETE", &share("data"), None).await.expect(204);
    refused(&scene.get(&share("data")).await, 404, "ShareNotFound");
    refused(&scene.put(&share("data"), &wanted).await, 409, "ShareBeingDeleted");
    scene.double.advance(STEP);
    scene.put(&share("data"), &wanted).await.expect(201);
    refused(&scene.get(&share("data").replace("steast", "stnone")).await, 404, "ResourceNotFound");
    scene.double.assert_clean();
    for (name, body, code) in [
        ("Data", json!({}), "InvalidResourceName"),
        ("a--b", json!({}), "InvalidResourceName"),
        ("fine", json!({"properties": {"shareQuota": 0}}), "InvalidHeaderValue"),
        ("fine", json!({"properties": {"metadata": {"a-b": "x"}}}), "InvalidMetadata"),
        ("fine", json!({"properties": {"quota": 5}}), "InvalidRequestContent"),
    ] {
        refused(&scene.put(&share(name), &body).await, 400, code);
        assert_eq!(scene.double.take_violations().len(), 1);
    }
    assert_eq!(scene.double.shares().len(), 3);
}

#[tokio::test]
async fn a_mount_fails_late_without_its_share_or_key() {
    let scene = Scene::new().await;
    let key = key(&scene).await;
    scene.put(&group("early"), &mounting(&key)).await.expect(201);
    scene.put(&share("data"), &json!({})).await.expect(201);
    scene.put(&group("wrong"), &mounting("bm8=")).await.expect(201);
    scene.up("right", &mounting(&key)).await;
    for name in ["early", "wrong"] {
        let seen = scene.get(&group(name)).await.expect(200);
        assert_eq!(seen["properties"]["instanceView"]["events"][0]["name"], "FailedMount", "{name}");
        assert_eq!(seen["properties"]["provisioningState"], "Creating", "{name}");
    }
    scene.double.advance(LONG);
    assert_eq!(scene.get(&group("wrong")).await.expect(200)["properties"]["provisioningState"], "Failed");
    let seen = scene.get(&group("right")).await.expect(200);
    assert_eq!(
        seen["properties"]["volumes"][0]["azureFile"],
        json!({"shareName": "data", "storageAccountName": "steast"})
    );
    // A key that was changed is found out at the next start.
    scene.double.rotate_keys("steast");
    scene.post(&format!("{}/restart", group("right"))).await.expect(204);
    scene.double.advance(LONG * 2);
    assert_eq!(scene.get(&group("right")).await.expect(200)["properties"]["provisioningState"], "Failed");
    scene.double.assert_clean();
    scene.call("DELETE", &share("data"), None).await.expect(200);
    assert!(scene.double.take_violations()[0].contains("while"));
}
