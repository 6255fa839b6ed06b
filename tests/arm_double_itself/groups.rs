//! What becomes of a group: its states, its containers, updates, stops, starts, and what there is room for.

use super::*;

fn state(group: &Value) -> (&str, &str) {
    let text = |value: &'_ Value| -> &'static str {
        ["Pending", "Creating", "Succeeded", "Failed", "Deleting", "Running", "Stopped"]
            .into_iter()
            .find(|word| value == word)
            .unwrap_or("another")
    };
    (text(&group["properties"]["provisioningState"]), text(&group["properties"]["instanceView"]["state"]))
}

fn view(group: &Value, at: usize) -> &Value {
    &group["properties"]["containers"][at]["properties"]["instanceView"]
}

fn events(view: &Value) -> Vec<&str> {
    view["events"].as_array().into_iter().flatten().filter_map(|event| event["name"].as_str()).collect()
}

#[tokio::test]
async fn a_group_comes_up_step_by_step() {
    let scene = Scene::new().await;
    let mut wanted = one("nginx:1");
    wanted["properties"]["initContainers"] = json!([{"name": "first", "properties": {"image": "tools/oneshot:1"}}]);
    let created = scene.put(&group("a"), &wanted).await.expect(201);
    assert_eq!(state(&created), ("Pending", "Pending"));
    let look = async || {
        scene.double.advance(STEP);
        scene.get(&group("a")).await.expect(200)
    };
    let pulling = look().await;
    assert_eq!(state(&pulling), ("Creating", "Pending"));
    assert_eq!(
        (events(view(&pulling, 0)), &view(&pulling, 0)["currentState"]["state"]),
        (vec!["Pulling"], &json!("Waiting"))
    );
    let first = look().await;
    let init = &first["properties"]["initContainers"][0]["properties"]["instanceView"];
    assert_eq!((state(&first), &init["currentState"]["state"]), (("Creating", "Pending"), &json!("Running")));
    assert_eq!(events(view(&first, 0)), ["Pulling", "Pulled"]);
    let starting = look().await;
    let init = &starting["properties"]["initContainers"][0]["properties"]["instanceView"]["currentState"];
    assert_eq!((&init["state"], &init["exitCode"]), (&json!("Terminated"), &json!(0)));
    assert_eq!(state(&starting).0, "Creating");
    let up = look().await;
    assert_eq!(state(&up), ("Succeeded", "Running"));
    assert_eq!(events(view(&up, 0)), ["Pulling", "Pulled", "Started"]);
    assert_eq!(view(&up, 0)["currentState"]["state"], "Running");
    scene.double.assert_clean();
}

#[tokio::test]
async fn restart_policies_are_obeyed() {
    let scene = Scene::new().await;
    for (name, image, policy, group_state, container) in [
        ("a", "x/crash", "Never", "Failed", "Terminated"),
        ("b", "x/crash", "OnFailure", "Running", "Waiting"),
        ("c", "x/oneshot", "OnFailure", "Succeeded", "Terminated"),
        ("d", "x/oneshot", "Always", "Running", "Waiting"),
    ] {
        let mut wanted = one(image);
        wanted["properties"]["restartPolicy"] = json!(policy);
        scene.up(name, &wanted).await;
        let seen = scene.get(&group(name)).await.expect(200);
        assert_eq!(seen["properties"]["instanceView"]["state"], group_state, "{name}");
        assert_eq!(view(&seen, 0)["currentState"]["state"], container, "{name}: {}", view(&seen, 0));
    }
    scene.double.advance(Duration::from_secs(600));
    let again = scene.get(&group("b")).await.expect(200);
    assert_eq!(
        (&view(&again, 0)["restartCount"], &view(&again, 0)["previousState"]["exitCode"]),
        (&json!(3), &json!(1))
    );
    scene.double.assert_clean();
}

#[tokio::test]
async fn commands_and_probes_are_understood() {
    let scene = Scene::new().await;
    let mut wanted = body(&[container("web", "a:1"), container("sick", "b/sick:1"), container("ends", "c:1")]);
    wanted["properties"]["containers"][0]["properties"]["command"] =
        json!(["/bin/sh", "-c", "echo one; echo two >&2; sleep 3600"]);
    wanted["properties"]["containers"][1]["properties"]["readinessProbe"] = json!({"httpGet": {"port": 80}});
    wanted["properties"]["containers"][2]["properties"]["command"] = json!(["sh", "-c", "exit 3"]);
    wanted["properties"]["restartPolicy"] = json!("Never");
    scene.up("a", &wanted).await;
    let seen = scene.get(&group("a")).await.expect(200);
    assert!(events(view(&seen, 1)).contains(&"Unhealthy"), "{}", view(&seen, 1));
    assert_eq!(view(&seen, 1)["currentState"]["state"], "Running");
    assert_eq!(view(&seen, 2)["currentState"]["exitCode"], 3);
    let logs = scene.get(&format!("{}/containers/web/logs", group("a"))).await.expect(200);
    assert_eq!(logs["content"], "one\ntwo\n");
    let mut deadly = body(&[container("sick", "b/sick:1")]);
    deadly["properties"]["containers"][0]["properties"]["livenessProbe"] = json!({"exec": {"command": ["true"]}});
    scene.up("b", &deadly).await;
    scene.double.advance(LONG);
    let seen = scene.get(&group("b")).await.expect(200);
    assert_eq!(view(&seen, 0)["previousState"]["exitCode"], 137, "{}", view(&seen, 0));
    scene.double.assert_clean();
}

#[tokio::test]
async fn a_killed_container_comes_back_as_its_policy_says() {
    let scene = Scene::new().await;
    scene.up("a", &one("nginx:1")).await;
    scene.double.kill("rg-east", "a", "web", 137);
    let killed = scene.get(&group("a")).await.expect(200);
    assert_eq!(view(&killed, 0)["currentState"]["state"], "Waiting");
    assert_eq!(view(&killed, 0)["previousState"]["exitCode"], 137);
    scene.double.advance(STEP);
    let back = scene.get(&group("a")).await.expect(200);
    assert_eq!(
        (&view(&back, 0)["currentState"]["state"], &view(&back, 0)["restartCount"]),
        (&json!("Running"), &json!(1))
    );
}

#[tokio::test]
async fn an_init_container_that_fails_keeps_the_group_down() {
    let scene = Scene::new().await;
    let mut wanted = one("nginx:1");
    wanted["properties"]["initContainers"] = json!([{"name": "first", "properties": {"image": "tools/crash"}}]);
    wanted["properties"]["restartPolicy"] = json!("Never");
    scene.put(&group("a"), &wanted).await.expect(201);
    scene.double.advance(LONG);
    assert_eq!(state(&scene.get(&group("a")).await.expect(200)), ("Failed", "Failed"));
}

#[tokio::test]
async fn updates_restart_in_place_or_are_refused() {
    let scene = Scene::new().await;
    scene.put(&group("a"), &one("nginx:1")).await.expect(201);
    refused(&scene.put(&group("a"), &one("nginx:2")).await, 409, "ContainerGroupTransitioning");
    scene.double.advance(LONG);
    let updated = scene.put(&group("a"), &one("nginx:2")).await.expect(200);
    assert_eq!(state(&updated).0, "Pending");
    scene.double.advance(LONG);
    for change in [
        |body: &mut Value| body["properties"]["restartPolicy"] = json!("Always"),
        |body: &mut Value| body["properties"]["containers"][0]["properties"]["resources"]["requests"]["cpu"] = json!(2),
        |body: &mut Value| body["properties"]["containers"].as_array_mut().expect("a list").push(container("b", "b:1")),
        |body: &mut Value| body["properties"]["osType"] = json!("Windows"),
        |body: &mut Value| {
            body["properties"]["containers"][0]["properties"]["ports"] = json!([{"port": 80}]);
            body["properties"]["ipAddress"] = json!({"type": "Public", "ports": [{"port": 80}]});
        },
    ] {
        let mut wanted = one("nginx:2");
        change(&mut wanted);
        let message = refused(&scene.put(&group("a"), &wanted).await, 400, "InvalidContainerGroupUpdate");
        assert!(message.contains("you must delete it first"), "{message}");
    }
    let mut moved = one("nginx:2");
    moved["location"] = json!("westeurope");
    refused(&scene.put(&group("a"), &moved).await, 409, "InvalidResourceLocation");
    // The same numbers in another spelling are no change.
    let mut same = one("nginx:3");
    same["properties"]["containers"][0]["properties"]["resources"]["requests"] = json!({"memoryInGB": 1.5, "cpu": 1.0});
    scene.put(&group("a"), &same).await.expect(200);
    scene.double.assert_clean();
}

#[tokio::test]
async fn tags_change_without_a_restart() {
    let scene = Scene::new().await;
    scene.up("a", &one("nginx:1")).await;
    let patched = scene.call("PATCH", &group("a"), Some(&json!({"tags": {"generation": "2"}}))).await.expect(200);
    assert_eq!((state(&patched), &patched["tags"]), (("Succeeded", "Running"), &json!({"generation": "2"})));
    let wrong = scene.call("PATCH", &group("a"), Some(&json!({"tags": {"a/b": "2"}}))).await;
    refused(&wrong, 400, "InvalidTagNameCharacters");
    let wrong = scene.call("PATCH", &group("a"), Some(&json!({"tags": {}, "properties": {}}))).await;
    refused(&wrong, 400, "InvalidRequestContent");
    refused(&scene.call("PATCH", &group("b"), Some(&json!({"tags": {}}))).await, 404, "ResourceNotFound");
}

#[tokio::test]
async fn a_stop_takes_its_time_and_a_start_gives_another_address() {
    let scene = Scene::new().await;
    let mut wanted = one("nginx:1");
    wanted["properties"]["containers"][0]["properties"]["ports"] = json!([{"port": 80}]);
    wanted["properties"]["ipAddress"] = json!({"type": "Public", "ports": [{"port": 80}], "dnsNameLabel": "label-a"});
    scene.up("a", &wanted).await;
    let before = scene.get(&group("a")).await.expect(200)["properties"]["ipAddress"].clone();
    assert_eq!(
        (&before["fqdn"], &before["ports"][0]["protocol"]),
        (&json!("label-a.eastus.azurecontainer.io"), &json!("TCP"))
    );
    scene.post(&format!("{}/start", group("a"))).await.expect(204);
    scene.post(&format!("{}/stop", group("a"))).await.expect(204);
    let stopping = scene.get(&group("a")).await.expect(200);
    assert_eq!(state(&stopping), ("Succeeded", "Running"));
    refused(&scene.post(&format!("{}/start", group("a"))).await, 409, "ContainerGroupTransitioning");
    refused(&scene.post(&format!("{}/restart", group("a"))).await, 409, "ContainerGroupTransitioning");
    refused(&scene.put(&group("a"), &wanted).await, 409, "ContainerGroupTransitioning");
    scene.post(&format!("{}/stop", group("a"))).await.expect(204);
    scene.double.advance(STEP);
    let stopped = scene.get(&group("a")).await.expect(200);
    assert_eq!(state(&stopped), ("Succeeded", "Stopped"));
    assert_eq!(
        (&view(&stopped, 0)["currentState"]["state"], &stopped["properties"]["ipAddress"]["ip"]),
        (&json!("Terminated"), &Value::Null)
    );
    header(&scene.post(&format!("{}/start", group("a"))).await, "azure-asyncoperation");
    scene.double.advance(LONG);
    let again = scene.get(&group("a")).await.expect(200);
    assert_eq!(state(&again), ("Succeeded", "Running"));
    assert_eq!(again["properties"]["ipAddress"]["fqdn"], before["fqdn"]);
    assert_ne!(again["properties"]["ipAddress"]["ip"], before["ip"]);
    scene.double.change_ip("rg-east", "a");
    let moved = scene.get(&group("a")).await.expect(200);
    assert_ne!(moved["properties"]["ipAddress"]["ip"], again["properties"]["ipAddress"]["ip"]);
    scene.post(&format!("{}/restart", group("a"))).await.expect(204);
    assert_eq!(state(&scene.get(&group("a")).await.expect(200)).0, "Pending");
    scene.double.assert_clean();
}

#[tokio::test]
async fn a_label_is_given_once() {
    let scene = Scene::new().await;
    let wanted = |label: &str, scope: &str| {
        let mut wanted = one("nginx:1");
        wanted["properties"]["containers"][0]["properties"]["ports"] = json!([{"port": 80}]);
        wanted["properties"]["ipAddress"] = json!({"type": "Public", "ports": [{"port": 80}], "dnsNameLabel": label, "autoGeneratedDomainNameLabelScope": scope});
        wanted
    };
    let one = scene.put(&group("a"), &wanted("label-a", "TenantReuse")).await.expect(201);
    let fqdn = one["properties"]["ipAddress"]["fqdn"].as_str().expect("a name").to_owned();
    assert!(fqdn.starts_with("label-a.") && fqdn.ends_with(".eastus.azurecontainer.io"), "{fqdn}");
    assert_eq!(fqdn.split('.').count(), 5);
    refused(&scene.put(&group("b"), &wanted("label-a", "TenantReuse")).await, 400, "DnsNameLabelAlreadyTaken");
    scene.put(&group("b"), &wanted("label-a", "Noreuse")).await.expect(201);
    scene.double.take_label("eastus", "label-c");
    scene.double.set(|settings| settings.taken_status = 409);
    let message =
        refused(&scene.put(&group("c"), &wanted("label-c", "Unsecure")).await, 409, "DnsNameLabelAlreadyTaken");
    assert!(message.contains("'label-c' in container group 'c' is not available"), "{message}");
}

#[tokio::test]
async fn quotas_capacity_and_the_pace_of_writes_are_kept() {
    let scene = Scene::new().await;
    scene.double.region("eastus", |region| region.cores = 1.5);
    scene.put(&group("a"), &one("nginx:1")).await.expect(201);
    let message = refused(&scene.put(&group("b"), &one("nginx:1")).await, 400, "ContainerGroupQuotaReached");
    assert!(
        message.contains("quota 'StandardCores' exceeded in region 'eastus'. Limit: '1.5', Usage: '1' Requested: '1'"),
        "{message}"
    );
    scene.double.region("eastus", |region| (region.cores, region.groups) = (10.0, 1));
    let message = refused(&scene.put(&group("b"), &one("nginx:1")).await, 400, "ContainerGroupQuotaReached");
    assert!(message.contains("'ContainerGroups'"), "{message}");
    scene.double.region("eastus", |region| (region.groups, region.capacity) = (10, false));
    let message = refused(&scene.put(&group("b"), &one("nginx:1")).await, 409, "ServiceUnavailable");
    assert!(message.contains("Resource requested: '1' CPU '1.5' GB memory 'Linux' OS"), "{message}");
    scene.double.region("eastus", |region| region.capacity = true);
    scene.double.set(|settings| settings.writes = vec![(6, 300_000)]);
    let answer = scene.put(&group("b"), &one("nginx:1")).await;
    answer.expect(201);
    assert_eq!(header(&answer, "x-ms-ratelimit-remaining-subscription-resource-requests-pt5m"), "1");
    scene.put(&group("c"), &one("nginx:1")).await.expect(201);
    let answer = scene.put(&group("d"), &one("nginx:1")).await;
    refused(&answer, 429, "TooManyRequests");
    let wait: u64 = header(&answer, "retry-after").parse().expect("seconds");
    assert!((1..=300).contains(&wait), "{wait}");
    scene.double.advance(Duration::from_secs(wait));
    scene.put(&group("d"), &one("nginx:1")).await.expect(201);
    scene.double.assert_clean();
}

#[tokio::test]
async fn logs_are_there_once_something_has_started() {
    let scene = Scene::new().await;
    let logs = format!("{}/containers/web/logs", group("a"));
    refused(&scene.get(&logs).await, 404, "ResourceNotFound");
    scene.put(&group("a"), &one("nginx:1")).await.expect(201);
    refused(&scene.get(&logs).await, 409, "ContainerGroupDeploymentNotReady");
    scene.double.advance(LONG);
    assert_eq!(scene.get(&logs).await.expect(200), json!({"content": null}));
    for line in ["one", "two", "three"] {
        scene.double.write_log("rg-east", "a", "web", line);
    }
    assert_eq!(scene.get(&format!("{logs}?tail=2")).await.expect(200)["content"], "two\nthree\n");
    let stamped = scene.get(&format!("{logs}?tail=1&timestamps=true")).await.expect(200)["content"].clone();
    let (stamp, line) = stamped.as_str().and_then(|text| text.split_once(' ')).expect("a stamp and a line");
    assert_eq!(line, "three\n");
    stamp.parse::<jiff::Timestamp>().expect("a moment");
    refused(&scene.get(&logs.replace("web", "other")).await, 404, "ContainerNotFound");
    scene.double.assert_clean();
    refused(&scene.get(&format!("{logs}?tail=x")).await, 400, "InvalidTail");
    refused(&scene.get(&format!("{logs}?timestamps=1")).await, 400, "InvalidTimestamps");
    assert_eq!(scene.double.take_violations().len(), 2);
}

#[tokio::test]
async fn deletion_takes_its_time_or_none() {
    let scene = Scene::new().await;
    scene.call("DELETE", &group("a"), None).await.expect(204);
    scene.up("a", &one("nginx:1")).await;
    scene.call("DELETE", &group("a"), None).await.expect(202);
    assert_eq!(state(&scene.get(&group("a")).await.expect(200)).0, "Deleting");
    refused(&scene.put(&group("a"), &one("nginx:1")).await, 409, "ContainerGroupTransitioning");
    scene.double.advance(STEP);
    refused(&scene.get(&group("a")).await, 404, "ResourceNotFound");
    scene.put(&group("a"), &one("nginx:1")).await.expect(201);
    scene.double.set(|settings| settings.delete_at_once = true);
    let gone = scene.call("DELETE", &group("a"), None).await.expect(200);
    assert_eq!(gone["name"], "a");
    refused(&scene.get(&group("a")).await, 404, "ResourceNotFound");
    scene.double.assert_clean();
}
