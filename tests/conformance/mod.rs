//! What the behaviours stand on: a world in which tenants are made from Compose texts, and a tenant that walks through
//! prepare, plan, apply, commit and settle as the orchestrator does.

pub(crate) mod apart;
pub(crate) mod changes;
pub(crate) mod failures;
pub(crate) mod hooks;
pub(crate) mod isolation;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod updates;
pub(crate) mod usage;
pub(crate) mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use q8_agent::backend::{
    Backend, BackendError, Deployment, HostKey, ObservedContainer, Plan, PreStop, Removed, ResolvedImages, Run,
    TenantRef,
};
use q8_agent::compose::{self, Document, Files, LoadInput};
use q8_agent::domain::{Adopted, AgentId, ContainerId, DesiredState, Generation, ServiceName, Subdomain, TenantId};
use q8_agent::policy::{self, Ground, Profile};
use tokio::time::Instant;

/// Makes every behaviour a test of a backend. `$setup` gives the backend and the world that goes with it.
macro_rules! conformance {
    ($name:ident, $setup:path) => {
        $crate::conformance::conformance! { @each $name, $setup;
            lifecycle: [
                one_service_comes_up,
                services_wait_for_health_and_completion,
                an_identical_plan_is_empty,
                stop_keeps_what_start_brings_back,
                a_stop_is_seen_at_once,
                one_service_restarts_alone,
                a_named_service_stops_and_starts_alone,
                a_completed_service_is_not_run_again,
                an_update_of_a_stopped_tenant_leaves_it_stopped,
                removal_keeps_volumes_until_purged,
                repeats_are_harmless,
                published_ports_are_endpoints,
                images_are_told,
                an_unknown_service_is_refused,
                capabilities_are_honoured,
                the_host_is_described,
                no_grace_period_outlasts_the_operation,
            ],
            changes: [
                a_change_recreates_its_service_only,
                replicas_come_and_go,
                a_removed_service_goes,
                a_removed_network_goes,
                a_volume_survives_a_recreate,
                a_changed_volume_keeps_its_data,
                only_named_services_are_touched,
                networks_of_other_services_are_left_alone,
                dependents_that_ask_for_it_are_restarted,
                steering_attributes_recreate_nothing,
            ],
            failures: [
                a_failed_update_brings_the_same_containers_back,
                a_failed_first_provision_leaves_nothing,
                a_missing_image_touches_nothing,
                an_unhealthy_service_fails_with_its_last_output,
                an_exited_service_fails_with_its_last_words,
                an_exit_before_health_is_an_exit,
                a_failed_one_shot_fails,
                the_deadline_is_kept,
                a_taken_port_is_refused,
                a_crash_is_drift,
                what_was_being_stopped_runs_again,
                a_lost_record_costs_no_data,
            ],
            hooks: [
                post_start_comes_before_dependents,
                a_failed_post_start_fails_the_apply,
                a_post_start_ends_by_the_deadline,
                pre_stop_comes_before_every_stop,
                no_pre_stop_keeps_a_container_alive,
            ],
            updates: [
                start_first_waits_for_health,
                a_failed_start_first_disturbs_nothing,
                what_was_replaced_start_first_comes_back,
                groups_are_replaced_one_after_another,
                monitored_containers_must_stay_well,
                start_first_is_not_for_all,
                dependents_stop_before_what_they_depend_on,
            ],
            logs: [
                streams_are_told_apart,
                services_are_chosen,
                the_tail_is_the_end,
                followers_see_new_lines_at_once,
                times_limit_the_lines,
                followers_end_with_the_tenant,
                a_cursor_resumes_at_every_line,
                a_cursor_without_lines_begins_where_it_was_given,
                followers_see_what_joins,
                what_went_with_its_container_is_a_gap,
            ],
            usage: [
                usage_is_told,
                what_works_uses_cpu,
                what_is_held_is_told,
            ],
            isolation: [
                tenants_with_similar_names_do_not_mix,
                another_identity_touches_nothing,
                tenants_lists_them_all,
            ],
            watching: [
                a_watch_tells_the_whole_and_then_every_change,
                a_watch_tells_every_end,
                what_is_set_aside_is_not_told,
            ],
        }
    };
    (@each $name:ident, $setup:path; $($module:ident: [$($behaviour:ident),* $(,)?],)*) => {
        mod $name {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    let (backend, world) = $setup().await;
                    let apart = $crate::conformance::apart::of(stringify!($behaviour)).filter(|_| world.grouped);
                    match apart {
                        Some(apart) => apart.hold(&*backend, &world).await,
                        None => $crate::conformance::$module::$behaviour(&*backend, &world).await,
                    }
                    if let Some(judge) = &world.judge {
                        judge();
                    }
                }
            )*)*

            /// What is apart is a behaviour of the suite.
            #[test]
            fn every_row_of_the_table_is_a_behaviour() {
                let behaviours = [$($(stringify!($behaviour)),*),*];
                for apart in $crate::conformance::apart::TABLE {
                    assert!(behaviours.contains(&apart.behaviour), "{}", apart.behaviour);
                }
            }
        }
    };
}
pub(crate) use conformance;

/// The image of every stack here: a shell, `sleep`, `true` and `false`.
pub(crate) const IMAGE: &str = "q8test/busybox:1";

/// How long one operation may take. Generous: a slow machine is no failure.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whose agent this is and where its tenants live.
pub(crate) struct World {
    /// The agent.
    pub(crate) agent: AgentId,
    /// The host's key.
    pub(crate) key: HostKey,
    /// The tenants root, as the backend's machine sees it. No behaviour needs it to exist.
    pub(crate) root: String,
    /// Whether all containers of a tenant are one object, which is made, changed and stopped as a whole, in Azure's words a
    /// group. [`apart`] has the behaviours that are others there.
    pub(crate) grouped: bool,
    /// Judges what the backend has asked for, after each behaviour.
    pub(crate) judge: Option<Box<dyn Fn() + Send + Sync>>,
    /// Begins every subdomain, so that runs on one engine do not meet.
    prefix: String,
}

impl World {
    /// A new agent with this tenants root.
    pub(crate) fn new(root: &str) -> Self {
        let random = uuid::Uuid::new_v4();
        let mut key = [0; 32];
        key[..16].copy_from_slice(random.as_bytes());
        let hex = random.simple().to_string();
        Self {
            agent: AgentId::parse(&hex).expect("a UUID is 32 hexadecimal digits"),
            key: HostKey::new(key),
            root: root.to_owned(),
            grouped: false,
            judge: None,
            prefix: format!("t{}", &hex[..6]),
        }
    }

    /// How many objects a removal tells of.
    pub(crate) fn objects(&self, containers: usize, networks: usize) -> usize {
        if self.grouped { 1 } else { containers + networks }
    }

    /// For how many seconds a container lives that ends while its apply still waits. Of probes a group tells failures
    /// only, so nothing there can be waited for as long as on an engine.
    pub(crate) fn short_life(&self) -> &'static str {
        if self.grouped { "0.1" } else { "1" }
    }

    /// A tenant of this world.
    pub(crate) fn tenant(&self, name: &str) -> TenantRef {
        let subdomain = Subdomain::parse(&format!("{}-{name}", self.prefix)).expect("names here are short and plain");
        let id = TenantId::parse(&format!("id-{name}")).expect("names here are short and plain");
        TenantRef { agent: self.agent.clone(), subdomain, id, region: None, adopted: Adopted::default() }
    }

    /// What a backend is given for this text.
    pub(crate) fn deployment(&self, tenant: &TenantRef, generation: Generation, text: &str) -> Deployment {
        let project = tenant.project();
        let directory = format!("{}/{}", self.root, tenant.subdomain);
        let input = LoadInput {
            documents: &[Document { name: "compose.yaml", bytes: text.as_bytes() }],
            variables: &BTreeMap::new(),
            files: &NoFiles,
            profiles: &BTreeSet::new(),
            project: &project,
            names_the_project: true,
            directory: &directory,
        };
        let loaded = compose::load(&input).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let ground = Ground {
            files: &BTreeSet::new(),
            undefined: &[],
            publish_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            publish_ports: (20000, 29999),
            platform: "linux/amd64",
        };
        let admitted = policy::admit(&Profile::Trusted.into(), loaded.project, &ground)
            .unwrap_or_else(|refusals| panic!("{refusals:?}\n{text}"));
        Deployment {
            tenant: tenant.clone(),
            generation,
            desired: DesiredState::Running,
            project: admitted.project,
            files: BTreeMap::new(),
            pinned_images: BTreeMap::new(),
            authorised_images: std::collections::BTreeSet::new(),
            key: self.key.clone(),
        }
    }
}

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }
}

/// A Compose text of these services, each with its attributes a line, and what follows them at the top level. Every
/// service gets the test image and, so that stopping does not take its time, SIGKILL for a stop signal.
pub(crate) fn stack(services: &[(&str, &[&str])], rest: &str) -> String {
    let mut text = String::from("services:\n");
    for (name, lines) in services {
        writeln!(text, "  {name}:").expect("a string takes all");
        if !lines.iter().any(|line| line.starts_with("image:")) {
            writeln!(text, "    image: {IMAGE}").expect("a string takes all");
        }
        writeln!(text, "    stop_signal: SIGKILL").expect("a string takes all");
        for line in *lines {
            writeln!(text, "    {line}").expect("a string takes all");
        }
    }
    text.push_str(rest);
    text
}

/// Runs until it is stopped. Here and elsewhere an entrypoint, because every backend takes one: a command alone is put behind
/// the image's own, which not every backend knows.
pub(crate) const SLEEPS: &str = r#"entrypoint: ["sleep", "3600"]"#;
/// Healthy soon.
pub(crate) const HEALTHY: &str = r#"healthcheck: {test: ["CMD", "true"], interval: 200ms, timeout: 5s, retries: 3}"#;
/// Its first check comes long after any deadline: whoever waits for its health waits.
pub(crate) const UNDECIDED: &str = r#"healthcheck: {test: ["CMD", "true"], interval: 1h, timeout: 5s, retries: 3}"#;

/// A service name.
pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("names here are plain")
}

/// One tenant on its way through generations.
pub(crate) struct Tenant<'a> {
    /// Where it runs.
    pub(crate) backend: &'a dyn Backend,
    world: &'a World,
    /// Who it is.
    pub(crate) owner: TenantRef,
    /// The committed generation.
    pub(crate) generation: Generation,
    /// Its content.
    pub(crate) current: Option<Deployment>,
}

/// A container's identity across changes: the id, and when it was started.
pub(crate) type Identity = (ContainerId, Option<jiff::Timestamp>);

impl<'a> Tenant<'a> {
    /// A tenant that does not run yet.
    pub(crate) fn new(backend: &'a dyn Backend, world: &'a World, name: &str) -> Self {
        Self { backend, world, owner: world.tenant(name), generation: Generation::NONE, current: None }
    }

    /// How an operation is carried out here.
    pub(crate) fn run() -> Run {
        Run::until(Instant::now() + PATIENCE)
    }

    /// The deployment of the next generation.
    pub(crate) fn next(&self, text: &str) -> Deployment {
        self.world.deployment(&self.owner, self.generation.next(), text)
    }

    /// What bringing this text up would do.
    pub(crate) async fn plan(&self, wanted: &Deployment) -> Plan {
        let run = Self::run();
        let images = self.backend.prepare(wanted, &run).await.expect("the images are there");
        self.backend.plan(wanted, &images, &run).await.expect("a plan")
    }

    /// Brings the text up, or says why not and puts back what was there.
    pub(crate) async fn up(&mut self, text: &str) -> Result<Plan, BackendError> {
        self.up_as(self.next(text), &Self::run()).await
    }

    /// The same with a deployment and a run of the caller's own.
    pub(crate) async fn up_as(&mut self, wanted: Deployment, run: &Run) -> Result<Plan, BackendError> {
        let pre_stop = self.current.as_ref().map(PreStop::of_all).unwrap_or_default();
        let run = &Run { pre_stop, ..run.clone() };
        let images = self.backend.prepare(&wanted, run).await?;
        let plan = self.backend.plan(&wanted, &images, run).await?;
        let applied = self.backend.apply(&wanted, &images, &plan, run).await;
        match applied {
            Ok(settled) => {
                self.generation = wanted.generation;
                if settled.is_none() {
                    self.backend.settle(&self.owner, self.generation, Some(&wanted), None).await.expect("it settles");
                }
                self.current = Some(wanted);
                if let Some(snapshot) = settled {
                    let seen = snapshot.containers.into_iter().map(|container| container.status.id);
                    let there = self.containers().await.into_values().map(|container| container.status.id);
                    assert_eq!(seen.collect::<BTreeSet<_>>(), there.collect());
                }
                Ok(plan)
            }
            Err(error) => {
                self.backend
                    .settle(&self.owner, self.generation, self.current.as_ref(), Some(&plan.undo))
                    .await
                    .expect("it settles back");
                Err(error)
            }
        }
    }

    /// The images of the next generation's text, where only they matter.
    pub(crate) async fn images_of(&self, wanted: &Deployment) -> ResolvedImages {
        self.backend.prepare(wanted, &Self::run()).await.expect("the images are there")
    }

    /// The committed deployment.
    pub(crate) fn deployed(&self) -> &Deployment {
        self.current.as_ref().expect("it is up")
    }

    /// Its containers by `service-number`.
    pub(crate) async fn containers(&self) -> BTreeMap<String, ObservedContainer> {
        let observed = self.backend.status(&self.owner).await.expect("a status");
        observed
            .into_iter()
            .map(|container| (format!("{}-{}", container.service, container.number), container))
            .collect()
    }

    /// Who its containers are.
    pub(crate) async fn identities(&self) -> BTreeMap<String, Identity> {
        let all = self.containers().await;
        all.into_iter().map(|(name, c)| (name, (c.status.id, c.status.started_at))).collect()
    }

    /// The states of its containers.
    pub(crate) async fn states(&self) -> BTreeMap<String, String> {
        self.containers().await.into_iter().map(|(name, container)| (name, container.status.state)).collect()
    }

    /// The name that the first container of a service has.
    pub(crate) fn container_name(&self, service: &str) -> String {
        if self.world.grouped { service.to_owned() } else { format!("{}-{service}-1", self.owner.project()) }
    }

    /// Asserts that exactly these containers are there, all running.
    pub(crate) async fn assert_running(&self, names: &[&str]) {
        let wanted: BTreeMap<String, String> =
            names.iter().map(|&name| (name.to_owned(), String::from("running"))).collect();
        assert_eq!(self.states().await, wanted);
    }

    /// Asserts that the committed deployment needs nothing.
    pub(crate) async fn assert_settled(&self) {
        let plan = self.plan(self.deployed()).await;
        assert!(plan.is_empty(), "{plan:#?}");
    }

    /// Removes it with all it has.
    pub(crate) async fn purge(&mut self) -> Removed {
        let run = Self::run();
        let removed = self.backend.remove(&self.owner, self.current.as_ref(), true, &run).await.expect("it goes");
        self.current = None;
        assert!(self.containers().await.is_empty());
        removed
    }
}

/// Looks until something is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !look().await {
        assert!(Instant::now() < end, "after {PATIENCE:?} it is still not so that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
