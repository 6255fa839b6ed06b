//! The operations that are tortured, on one tenant and its variants, and what has to hold after each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::models::{NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, RemoveVolumeOptions};
use serde_json::{Value, json};

use crate::auditor::{Candidate, Found, audit_among, labels_of_all};
use crate::marks::Marks;
use crate::scene::{LONG, PROVISION, SLEEPS, UPDATE, assert_same, begin_under, objects, purge, request, stack};
use crate::support::agent::Agent;
use crate::support::engine::Engine;
use crate::support::http::Answer;

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// To this variant, whether or not the tenant is there.
    Provision(usize),
    /// To this variant, of a tenant that is there.
    Update(usize),
    Rollback,
    Restart,
    Stop,
    Start,
    Teardown,
    Purge,
}

/// What is sent, and sent again.
pub(crate) struct Request {
    path: String,
    body: Value,
    key: Option<String>,
}

/// A tenant that is acted on, and what is known about it.
pub(crate) struct Victim {
    pub(crate) name: String,
    candidates: Vec<Candidate>,
    /// Variant and generation as acknowledged, and whether it is stopped.
    pub(crate) at: Found,
    /// The variant before.
    previous: Option<usize>,
    /// The specification hashes of each variant's objects, learnt where nothing went wrong.
    specs: BTreeMap<usize, BTreeMap<String, String>>,
    marks: Marks,
}

/// Healthy two seconds after its start.
const CHECKED: &[&str] = &[r#"healthcheck: {test: ["CMD", "sleep", "1"], interval: 1s, timeout: 30s}"#];

/// Variants 0 and 1 differ in everything that a stack has; 2 and 3 are replaced start-first. `more` is of `web`.
fn candidates(name: &str, more: &[&str]) -> Vec<Candidate> {
    let value = |number: usize| format!("environment: {{VARIANT: '{number}', FROM_ENV: \"${{VALUE}}\"}}");
    let page = "volumes: ['./page:/page:ro', 'store:/store']";
    let config = "configs: [{source: conf, target: /conf, mode: 0400}]";
    let first = "deploy: {update_config: {order: start-first}}";
    let db: &[&[&str]] = &[SLEEPS, &["volumes: ['./data/x:/x']", "networks: [back]"]];
    let rest = |number: usize, networks: &str| {
        format!(
            "volumes: {{store: {{}}}}\nnetworks: {{default: {{}}, back: {{}}{networks}}}\n\
             configs: {{conf: {{content: 'variant {number}'}}}}\n"
        )
    };
    let body = |number: usize| {
        let value = value(number);
        let web: &[&str] = &[&value, page, config, "networks: [default, back]"];
        let text = match number {
            0 => stack(&[("web", &[SLEEPS, web, more]), ("db", db)], &rest(0, "")),
            1 => stack(
                &[
                    ("web", &[SLEEPS, web, more, &["depends_on: [db]"]]),
                    ("db", db),
                    ("more", &[SLEEPS, &["networks: [late]"]]),
                ],
                &rest(1, ", late: {}"),
            ),
            _ => stack(&[("web", &[SLEEPS, web, more, &[first]]), ("db", db)], &rest(number, "")),
        };
        let mut body = request(name, &text);
        body["env_content"] = json!(format!("VALUE={number}\n"));
        let own = format!("own/file-{number}");
        body["files"] = json!({"page": format!("page {number}\n"), own: "only here\n"});
        body
    };
    (0..4)
        .map(|number| Candidate {
            body: body(number),
            containers: if number == 1 { &["web-1", "db-1", "more-1"] } else { &["web-1", "db-1"] },
        })
        .collect()
}

impl Victim {
    pub(crate) fn new(name: String) -> Self {
        Self::with(name, &[])
    }

    /// One whose `web` has to be healthy before it counts as up.
    pub(crate) fn that_is_checked(name: String) -> Self {
        Self::with(name, CHECKED)
    }

    fn with(name: String, more: &[&str]) -> Self {
        let (candidates, marks) = (candidates(&name, more), Marks::of(&name));
        Self { name, candidates, at: Found::Absent, previous: None, specs: BTreeMap::new(), marks }
    }

    /// An action as it is asked for, under an `Idempotency-Key` of its own if it `has_key`.
    pub(crate) fn request(&self, action: Action, has_key: bool) -> Request {
        let (path, body) = self.path_and_body(action);
        Request { path, body, key: has_key.then(|| crate::support::unique("key")) }
    }

    fn path_and_body(&self, action: Action) -> (String, Value) {
        let name = &self.name;
        let path = |what: &str, query: &str| format!("/v1/tenants/{what}/{name}{query}");
        match action {
            Action::Provision(number) => (PROVISION.to_owned(), self.candidates[number].body.clone()),
            Action::Update(number) => {
                let mut body = self.candidates[number].body.clone();
                body.as_object_mut().expect("an object").remove("id");
                for other in (0..4).filter(|other| *other != number) {
                    body["files"][format!("own/file-{other}")] = Value::Null;
                }
                body["pull"] = json!(false);
                (UPDATE.to_owned(), body)
            }
            Action::Rollback => {
                let Found::At { generation, .. } = self.at else { panic!("{name} is not there to be rolled back") };
                (path("rollback", &format!("?from={generation}")), Value::Null)
            }
            Action::Restart => (path("restart", ""), Value::Null),
            Action::Stop => (path("stop", ""), Value::Null),
            Action::Start => (path("start", ""), Value::Null),
            Action::Teardown => (path("teardown", ""), Value::Null),
            Action::Purge => (path("teardown", "?purge=true"), Value::Null),
        }
    }

    /// What the tenant is after an action that succeeds.
    fn after(&self, action: Action) -> Found {
        let (generation, stopped) = match self.at {
            Found::At { generation, stopped, .. } => (generation, stopped),
            // A kept tenant goes on counting; where it was, its record knows.
            Found::Kept | Found::Absent => (0, false),
        };
        match (action, self.at) {
            (Action::Provision(number) | Action::Update(number), _) => {
                Found::At { candidate: number, generation: generation + 1, stopped }
            }
            (Action::Rollback, Found::At { .. }) => {
                let candidate = self.previous.expect("a rollback needs a variant before");
                Found::At { candidate, generation: generation + 1, stopped }
            }
            (Action::Stop, Found::At { candidate, generation, .. }) => {
                Found::At { candidate, generation, stopped: true }
            }
            (Action::Start | Action::Restart, Found::At { candidate, generation, .. }) => {
                Found::At { candidate, generation, stopped: false }
            }
            (Action::Teardown, Found::At { .. } | Found::Kept) => Found::Kept,
            (Action::Purge, _) => Found::Absent,
            (action, at) => panic!("{action:?} makes no sense when the tenant is {at:?}"),
        }
    }

    /// Does an action that nothing disturbs, and learns from it.
    pub(crate) async fn act(&mut self, engine: Option<&Engine>, agent: &Agent<'_>, action: Action, story: &str) {
        let answer = send(agent, &self.request(action, false)).await.expect("no panic").expect("an answer");
        assert!(answer.status.is_success(), "{story}: {action:?}: {}", answer.text());
        self.audit(engine, agent, action, true, story).await;
    }

    /// Whatever the tenant is, it is all of that, and what its containers have written is there.
    async fn look(&mut self, engine: Option<&Engine>, agent: &Agent<'_>, story: &str) -> Found {
        let found = audit_among(engine, agent, &self.name, story, &self.candidates).await;
        self.marks.check(engine, agent, found, story).await;
        found
    }

    /// The tenant is what it was before the action or what it is after it, and if the action was `acknowledged` the latter.
    pub(crate) async fn audit(
        &mut self,
        engine: Option<&Engine>,
        agent: &Agent<'_>,
        action: Action,
        acknowledged: bool,
        story: &str,
    ) {
        let found = self.look(engine, agent, story).await;
        let (before, after) = (self.at, self.after(action));
        let same = |one: Found, other: Found| match (one, other) {
            // The generation of a tenant that was kept is not known beforehand.
            (
                Found::At { candidate: one, stopped: is_stopped, .. },
                Found::At { candidate: other, stopped: to_be, .. },
            ) if before == Found::Kept => one == other && is_stopped == to_be,
            (one, other) => one == other,
        };
        let moved = same(found, after);
        assert!(
            moved || (!acknowledged && found == before),
            "{story}: it is {found:?}, was {before:?}, to be {after:?}"
        );
        if let (Some(engine), Found::At { candidate, .. }) = (engine, found) {
            let mut now = specs(engine, agent, &self.name).await;
            let known = self.specs.entry(candidate).or_insert_with(|| now.clone());
            // What the engine was making when the agent was killed may appear after the recovery, and goes again.
            let end = Instant::now() + LONG * 2;
            while *known != now && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(100)).await;
                now = specs(engine, agent, &self.name).await;
            }
            assert_same(known, &now, &format!("{story}: the specifications of variant {candidate}'s objects"));
        }
        if moved {
            if let (Found::At { candidate: was, .. }, Found::At { candidate: is, .. }) = (before, found) {
                self.previous = if was == is { self.previous } else { Some(was) };
            }
            self.at = found;
        }
    }

    /// Repeats a request that may have been carried out: it is now, and once.
    pub(crate) async fn repeat(
        &mut self,
        engine: Option<&Engine>,
        agent: &Agent<'_>,
        action: Action,
        request: &Request,
        was: Found,
        story: &str,
    ) {
        let carried_out = self.at != was;
        let mut answer = send(agent, request).await.expect("no panic").expect("an answer");
        if !answer.status.is_success() && answer.headers.contains_key("idempotency-replayed") {
            // A failure is told again where it was told before, and nothing has come of it.
            assert!(!carried_out, "{story}: the repeat under its key: {}", answer.text());
            let anew = Request { path: request.path.clone(), body: request.body.clone(), key: None };
            answer = send(agent, &anew).await.expect("no panic").expect("an answer");
        }
        let done_before = action == Action::Rollback && carried_out && answer.status == 409;
        assert!(answer.status.is_success() || done_before, "{story}: the repeat: {}", answer.text());
        if carried_out {
            let found = self.look(engine, agent, story).await;
            assert_eq!(found, self.at, "{story}: the repeat changes nothing");
        } else {
            self.audit(engine, agent, action, true, story).await;
        }
    }
}

/// The hash of what each container and network of a tenant was made from, by the object's name.
async fn specs(engine: &Engine, agent: &Agent<'_>, tenant: &str) -> BTreeMap<String, String> {
    let mut all = labels_of_all(engine, agent).await;
    all.retain(|(name, labels)| labels["dev.q8.tenant"] == tenant && !name.starts_with("volume "));
    all.into_iter().map(|(name, labels)| (name, labels.get("dev.q8.spec").cloned().unwrap_or_default())).collect()
}

/// Sends a request in the background.
pub(crate) fn send(
    agent: &Agent<'_>,
    request: &Request,
) -> tokio::task::JoinHandle<Result<Answer, crate::support::http::Failure>> {
    begin_under(agent, &request.path, &request.body, request.key.as_deref())
}

/// What nobody may touch: another tenant of the same agent, and a network and a volume without its labels whose names look
/// like the victim's.
pub(crate) struct Bystander {
    name: String,
    foreign: String,
    objects: BTreeMap<String, String>,
}

impl Bystander {
    pub(crate) async fn new(engine: &Engine, agent: &Agent<'_>, victim: &Victim) -> Self {
        let name = crate::support::unique("beside");
        let compose = stack(&[("web", &[SLEEPS, &["volumes: ['store:/store']"]])], "volumes: {store: {}}\n");
        agent.post(PROVISION, &request(&name, &compose)).await.expect(201);
        let foreign = format!("q8-{}_foreign", victim.name);
        let docker = engine.docker();
        let volume = VolumeCreateRequest { name: Some(foreign.clone()), ..VolumeCreateRequest::default() };
        docker.create_volume(volume).await.expect("a volume");
        let network = NetworkCreateRequest { name: foreign.clone(), ..NetworkCreateRequest::default() };
        docker.create_network(network).await.expect("a network");
        let mut bystander = Self { name, foreign, objects: BTreeMap::new() };
        bystander.objects = bystander.look(engine).await;
        bystander
    }

    async fn look(&self, engine: &Engine) -> BTreeMap<String, String> {
        let docker = engine.docker();
        let mut found = objects(engine, &format!("dev.q8.tenant={}", self.name)).await;
        if let Ok(volume) = docker.inspect_volume(&self.foreign).await {
            found.insert(String::from("the foreign volume"), format!("{:?}", volume.created_at));
        }
        if let Ok(network) = docker.inspect_network(&self.foreign, None::<InspectNetworkOptions>).await {
            found.insert(String::from("the foreign network"), format!("{:?}", network.id));
        }
        found
    }

    /// They are the same, and containers have run all the time.
    pub(crate) async fn assert_untouched(&self, engine: &Engine, story: &str) {
        assert_same(&self.objects, &self.look(engine).await, &format!("{story}: the bystander"));
    }

    /// Takes all of it away, when nothing else of the agent is left.
    pub(crate) async fn end(self, engine: &Engine, agent: &Agent<'_>) {
        self.assert_untouched(engine, "at the end").await;
        let docker = engine.docker();
        docker.remove_volume(&self.foreign, None::<RemoveVolumeOptions>).await.expect("it is there");
        docker.remove_network(&self.foreign).await.expect("it is there");
        purge(agent, engine, &self.name).await;
    }
}
