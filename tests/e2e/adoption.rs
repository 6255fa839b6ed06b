//! `adopt`: what docker compose made for a project becomes the tenant's, with its data and without a second network; and
//! when that fails, everything is as it was.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, NetworkCreateRequest, NetworkingConfig, RestartPolicy,
    RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, RemoveContainerOptionsBuilder,
    StartContainerOptions,
};
use serde_json::{Value, json};

use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::images::BUSYBOX;
use crate::support::unique;
use crate::tenant::{Tenant, UNDECIDED, inspect};

/// `db` counts its starts in a named volume, and writes into an anonymous one.
const STACK: &str = r#"
x-common: &common {image: "q8test/busybox:1", stop_signal: SIGKILL, restart: unless-stopped}
services:
  db:
    <<: *common
    command: [sh, -c, "echo start >>/data/starts; cat /data/starts /anonymous/note; exec sleep 3600"]
    volumes: ["kept:/data", "/anonymous"]
  web:
    <<: *common
    command: [sh, -c, "exec sleep 3600"]
    depends_on: [db]
volumes: {kept: {}}
"#;

/// A project as `docker compose -p q8-… up -d` leaves it, with the same labels.
struct Project {
    engine: &'static Engine,
    name: String,
    network: String,
}

impl Project {
    async fn up(engine: &'static Engine, tenant: &Tenant<'_>, more: &[(&str, &str)]) -> Self {
        let name = format!("q8-{}", tenant.name);
        let docker = engine.docker();
        let labels = |own: &[(&str, &str)]| {
            let all = [("com.docker.compose.project", name.as_str()), ("com.docker.compose.version", "2.26.1")];
            let all = all.iter().chain(own).chain(more);
            all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>()
        };
        let request = NetworkCreateRequest {
            name: format!("{name}_default"),
            labels: Some(labels(&[("com.docker.compose.network", "default")])),
            ..Default::default()
        };
        let network = docker.create_network(request).await.expect("a network is created").id;
        let request = VolumeCreateRequest {
            name: Some(format!("{name}_kept")),
            labels: Some(labels(&[("com.docker.compose.volume", "kept")])),
            ..Default::default()
        };
        docker.create_volume(request).await.expect("a volume is created");
        let project = Self { engine, name: name.clone(), network };
        let first = "echo first >>/data/starts; echo noted >/anonymous/note; exec sleep 3600";
        for (service, command, depends_on) in
            [("db", first, ""), ("web", "exec sleep 3600", "db:service_started:false")]
        {
            let labels = labels(&[
                ("com.docker.compose.service", service),
                ("com.docker.compose.container-number", "1"),
                ("com.docker.compose.oneoff", "False"),
                ("com.docker.compose.config-hash", "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"),
                ("com.docker.compose.depends_on", depends_on),
                ("com.docker.compose.project.working_dir", "/srv/stack"),
            ]);
            project.run(&format!("{name}-{service}-1"), command, service == "db", labels).await;
        }
        project
    }

    async fn run(&self, name: &str, command: &str, with_data: bool, labels: HashMap<String, String>) -> String {
        let docker = self.engine.docker();
        let network = format!("{}_default", self.name);
        let body = ContainerCreateBody {
            image: Some(BUSYBOX.to_owned()),
            cmd: Some(["sh", "-c", command].map(String::from).to_vec()),
            labels: Some(labels),
            stop_signal: Some("SIGKILL".to_owned()),
            volumes: with_data.then(|| vec!["/anonymous".to_owned()]),
            host_config: Some(HostConfig {
                network_mode: Some(network.clone()),
                binds: with_data.then(|| vec![format!("{}_kept:/data", self.name)]),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                ..Default::default()
            }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network, EndpointSettings::default())])),
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let id = docker.create_container(Some(options), body).await.expect("a container is created").id;
        docker.start_container(&id, None::<StartContainerOptions>).await.expect("it starts");
        id
    }

    async fn network_id(&self) -> Option<String> {
        let (docker, name) = (self.engine.docker(), format!("{}_default", self.name));
        docker.inspect_network(&name, None::<InspectNetworkOptions>).await.ok()?.id
    }

    async fn has_volume(&self) -> bool {
        self.engine.docker().inspect_volume(&format!("{}_kept", self.name)).await.is_ok()
    }

    /// Name, id and state of all of the project's containers.
    async fn containers(&self) -> BTreeMap<String, (String, String)> {
        let mut found = BTreeMap::new();
        for name in self.names().await.into_iter().filter(|name| name.starts_with('/')) {
            let docker = self.engine.docker();
            let container =
                docker.inspect_container(name.trim_start_matches('/'), None::<InspectContainerOptions>).await;
            // Gone, or renamed, since it was listed.
            let Ok(container) = container else { continue };
            let status = container.state.and_then(|state| state.status).map(|status| status.to_string());
            found.insert(name, (container.id.unwrap_or_default(), status.unwrap_or_default()));
        }
        found
    }

    /// Names of all that bears the project's label.
    async fn names(&self) -> Vec<String> {
        self.engine.labelled(&format!("com.docker.compose.project={}", self.name)).await
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let (engine, label) = (self.engine, format!("com.docker.compose.project={}", self.name));
        // The test's own runtime may be the one that is being dropped.
        std::thread::scope(|scope| {
            let tidy = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                drop(runtime.map(|runtime| runtime.block_on(engine.remove_labelled(&label))));
            });
            drop(tidy.join());
        });
    }
}

fn adopting() -> Value {
    json!({"adopt": true})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_is_taken_over_with_its_data() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let (name, id) = (unique("adopt"), unique("id"));
    let tenant = Tenant::again(&agent, &name, &id);
    let project = Project::up(engine, &tenant, &[]).await;
    let before = project.containers().await;

    // Without `adopt` it is somebody else's.
    let refused = agent.post("/v1/tenants/provision", &tenant.body(STACK, &json!({}))).await;
    refused.refused(409, "NAME_TAKEN");
    assert_eq!(project.containers().await, before, "and is not touched");

    let made = tenant.provision(STACK, adopting()).await;
    assert_eq!((&made["changed"], &made["generation"], &made["warnings"]), (&json!(true), &json!(1), &json!([])));
    let said = tenant.says("db", "start").await;
    assert_eq!(said, ["first", "start", "noted"], "the data of the named and of the anonymous volume is there");
    assert_eq!(project.network_id().await.as_ref(), Some(&project.network), "the network is the same");
    let after = project.containers().await;
    assert!(after.keys().eq(before.keys()), "{before:?} {after:?}");
    for (name, (id, state)) in &after {
        assert!(*id != before[name].0 && state == "running", "{name} is made anew once: {before:?} {after:?}");
    }
    assert_eq!(tenant.status().await["state"], "running");

    // Again is nothing, with `adopt` or without, also for an agent that has been started anew.
    for more in [adopting(), json!({})] {
        let again = agent.post("/v1/tenants/provision", &tenant.body(STACK, &more)).await.expect(200);
        assert_eq!((&again["changed"], &again["generation"]), (&json!(false), &json!(1)), "{again}");
    }
    agent.kill();
    agent.start_again().await;
    let tenant = Tenant::again(&agent, &name, &id);
    let again = agent.post("/v1/tenants/provision", &tenant.body(STACK, &json!({}))).await.expect(200);
    assert_eq!(again["changed"], false, "{again}");
    assert_eq!(project.containers().await, after);

    // A failed update comes back to the network that was taken over.
    let broken = STACK.replace("sh, -c, \"exec sleep 3600\"]", &format!("sh, -c, \"exit 3\"]\n    {UNDECIDED}"));
    assert_ne!(broken, STACK);
    tenant
        .update(json!({"compose_content": broken.replace("restart: unless-stopped", "restart: \"no\"")}))
        .await
        .refused(502, "SERVICE_EXITED");
    assert_eq!(tenant.becomes("running").await["generation"], 1);
    assert_eq!(project.network_id().await.as_ref(), Some(&project.network));

    // Teardown takes the network and keeps the volume; a purge takes that as well.
    let gone = tenant.act("teardown", "").await.expect(200);
    let volume = format!("{}_kept", project.name);
    assert_eq!(gone["kept"]["volumes"], json!([volume]), "{gone}");
    assert_eq!(project.names().await, [volume]);
    tenant.provision(STACK, json!({})).await;
    let said = tenant.says("db", "start").await;
    assert!(said.iter().any(|line| line == "first"), "kept for the same id: {said:?}");
    tenant.purge().await;
    assert_eq!(project.names().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_over_is_given_back() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let tenant = Tenant::new(&agent, "giveback");
    let project = Project::up(engine, &tenant, &[]).await;
    let before = project.containers().await;
    let broken = STACK.replace("sh, -c, \"exec sleep 3600\"]", &format!("sh, -c, \"exit 3\"]\n    {UNDECIDED}"));
    let broken = broken.replace("restart: unless-stopped", "restart: \"no\"");
    let body = tenant.body(&broken, &adopting());
    let failed = agent.post("/v1/tenants/provision", &body).await.refused(502, "SERVICE_EXITED");
    assert_eq!(failed["field"], "services.web", "{failed}");
    assert_eq!(project.containers().await, before, "the same containers, under their names, running");
    assert_eq!(project.network_id().await.as_ref(), Some(&project.network));
    assert!(project.has_volume().await);
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
    agent.get(&format!("/v1/tenants/status/{}", tenant.name)).await.refused(404, "NOT_FOUND");

    // And then it can be taken over all the same.
    tenant.provision(STACK, adopting()).await;
    assert_eq!(tenant.says("db", "start").await.first().map(String::as_str), Some("first"));
    tenant.purge().await;
    assert_eq!(project.names().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_while_it_takes_over_gives_back() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let (name, id) = (unique("adoptkill"), unique("id"));
    let tenant = Tenant::again(&agent, &name, &id);
    let project = Project::up(engine, &tenant, &[]).await;
    let before = project.containers().await;
    // It never becomes healthy, so the agent dies while the old containers are aside.
    let waiting = STACK.replace(
        "    depends_on: [db]",
        "    depends_on: [db]\n    healthcheck: {test: [CMD, \"false\"], interval: 60s, start_period: 600s}",
    );
    assert_ne!(waiting, STACK);
    let body = tenant.body(&waiting, &adopting());
    let asking = agent.post("/v1/tenants/provision", &body);
    let aside = crate::support::eventually("db and web are made anew", crate::tenant::PATIENCE, async || {
        let now = project.containers().await;
        let made = |service: &str| {
            let found = now.get(&format!("/{}-{service}-1", project.name));
            found.is_some_and(|(id, state)| state == "running" && before.values().all(|(old, _)| old != id))
        };
        (made("db") && made("web")).then_some(now)
    });
    tokio::select! {
        answer = asking => panic!("it is answered: {}", answer.text()),
        aside = aside => assert_eq!(aside.len(), 4, "{aside:?}"),
    }
    agent.kill();
    agent.start_again().await;
    crate::support::eventually("the old containers run again", crate::tenant::PATIENCE, async || {
        (project.containers().await == before).then_some(())
    })
    .await;
    assert!(project.has_volume().await);
    assert_eq!(project.network_id().await.as_ref(), Some(&project.network));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beyond_the_file_goes_if_it_is_the_projects_and_stays_if_not() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let tenant = Tenant::new(&agent, "beyond");
    let project = Project::up(engine, &tenant, &[]).await;
    let own = unique("q8test.beyond");
    let stranger = project.run(&own, "exec sleep 3600", false, HashMap::from([(own.clone(), String::new())])).await;
    // As `docker compose run` leaves it: with the service and number of the one that is up.
    let oneoff = HashMap::from(
        [
            ("com.docker.compose.project", project.name.as_str()),
            ("com.docker.compose.service", "db"),
            ("com.docker.compose.container-number", "1"),
            ("com.docker.compose.oneoff", "True"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    project.run(&format!("{}-db-1-run", project.name), "exec sleep 3600", false, oneoff.clone()).await;
    project.run(&format!("{}-a-run", project.name), "exec sleep 3600", false, oneoff).await;
    let only_db = STACK.split("  web:").next().expect("the first part").to_owned() + "volumes: {kept: {}}\n";
    let made = tenant.provision(&only_db, adopting()).await;
    assert!(made["warnings"][0].as_str().is_some_and(|text| text.contains(&own)), "{made}");
    let left: Vec<String> = project.containers().await.into_keys().collect();
    assert_eq!(left, [format!("/{}-db-1", project.name)], "web is no longer in the file");
    assert_eq!(inspect(engine, &stranger).await["State"]["Status"], "running");
    // Its network is in use by somebody else: no reason to keep the tenant up.
    tenant.purge().await;
    assert_eq!(project.containers().await, BTreeMap::new());
    assert_eq!(inspect(engine, &stranger).await["State"]["Status"], "running");
    engine.remove_labelled(&own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_agents_tenant_is_taken_over_if_it_is_the_same_tenant() {
    let engine = Engine::shared().with_busybox().await;
    let (old, new) = (Options::docker(engine).start().await, Options::docker(engine).start().await);
    let lost = Tenant::new(&old, "moved");
    lost.provision(STACK, json!({})).await;
    let stranger = Tenant::again(&new, &lost.name, "somebody-else");
    new.post("/v1/tenants/provision", &stranger.body(STACK, &adopting())).await.refused(409, "NAME_TAKEN");
    assert_eq!(lost.status().await["state"], "running");

    let heir = Tenant::again(&new, &lost.name, &lost.id);
    heir.provision(STACK, adopting()).await;
    let said = heir.says("db", "start").await;
    assert_eq!(said.iter().filter(|line| *line == "start").count(), 2, "{said:?}");
    let again = new.post("/v1/tenants/provision", &heir.body(STACK, &json!({}))).await.expect(200);
    assert_eq!(again["changed"], false, "{again}");
    heir.purge().await;
    assert_eq!(engine.left(&old.label()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_removed_by_hand_comes_back() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let tenant = Tenant::new(&agent, "byhand");
    tenant.provision(STACK, json!({})).await;
    let docker = engine.docker();
    let remove = async |container: &str| {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        docker.remove_container(container, Some(options)).await.expect("it is removed");
    };
    let provision = async || agent.post("/v1/tenants/provision", &tenant.body(STACK, &json!({}))).await.expect(200);

    // One container.
    let before = tenant.containers().await;
    remove(&before["web-1"].id).await;
    assert_eq!(provision().await["changed"], true);
    let after = tenant.containers().await;
    assert_eq!(after["db-1"], before["db-1"], "what is there is left alone");
    assert_ne!(after["web-1"].id, before["web-1"].id);

    // The network, under running containers.
    let network = format!("q8-{}_default", tenant.name);
    for container in after.values() {
        let request = bollard::models::NetworkDisconnectRequest { container: container.id.clone(), force: Some(true) };
        docker.disconnect_network(&network, request).await.expect("it leaves the network");
    }
    docker.remove_network(&network).await.expect("the network is removed");
    assert_eq!(provision().await["changed"], true);
    for container in tenant.containers().await.values() {
        let found = inspect(engine, &container.id).await;
        assert!(!found["NetworkSettings"]["Networks"][&network]["IPAddress"].as_str().unwrap_or_default().is_empty());
    }

    // Everything but the volume.
    for container in tenant.containers().await.values() {
        remove(&container.id).await;
    }
    docker.remove_network(&network).await.expect("the network is removed");
    assert_eq!(provision().await["changed"], true);
    assert_eq!(tenant.status().await["state"], "running");
    assert!(tenant.said("db").await.len() >= 3, "the volume is the same");
    assert_eq!(provision().await["changed"], false);

    // Somebody else's network under the name of one that is gone is a conflict, and theirs.
    for container in tenant.containers().await.values() {
        remove(&container.id).await;
    }
    docker.remove_network(&network).await.expect("the network is removed");
    let request = NetworkCreateRequest { name: network.clone(), ..Default::default() };
    let theirs = docker.create_network(request).await.expect("a network is created").id;
    let refused = agent.post("/v1/tenants/provision", &tenant.body(STACK, &adopting())).await;
    let refused = refused.refused(409, "NAME_TAKEN");
    assert!(refused["error"].as_str().is_some_and(|text| text.contains(&network)), "{refused}");
    let found = docker.inspect_network(&network, None::<InspectNetworkOptions>).await.expect("it is there");
    assert_eq!(found.id.as_ref(), Some(&theirs));
    docker.remove_network(&theirs).await.expect("it is removed");
    tenant.purge().await;
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}
