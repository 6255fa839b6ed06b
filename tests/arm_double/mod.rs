//! A strict double of Azure Resource Manager with container groups, resource groups, storage accounts and file shares; and of the
//! three places that give tokens for it. It runs in the test's own process, on ports of 127.0.0.1, and knows nothing of the
//! agent's own types.
//!
//! Strict means: whatever the contract does not allow is refused as Azure refuses it, and noted as a violation even where Azure
//! would let it pass (a member that only answers have, a poll before `Retry-After` is over, a share deleted while it is
//! mounted). Tests end with [`ArmDouble::assert_clean`].
//!
//! ```text
//! server.rs   connections, faults by rule, what is recorded        tokens.rs     Entra, metadata service, App Service
//! arm.rs      the front door and the routes                        operations.rs long-running operations and their polls
//! schema.rs   members of bodies      rules.rs  what bodies must fulfil beyond that
//! create.rs   creation and update    groups.rs other calls to groups         inside.rs   logs, terminals, locations
//! group.rs    where a group is by now                              program.rs    what containers do
//! storage.rs  accounts and shares    resources.rs  resource groups and lists sockets.rs  attach and exec
//! world.rs    all state and what tests may set                     faults.rs     what goes wrong on purpose
//! ```
//!
//! No task changes anything: where a group is follows from when its last change began, so a test can skip time with
//! [`ArmDouble::advance`].
#![allow(dead_code, clippy::disallowed_methods, reason = "every test binary uses another part of this")]

mod answer;
mod arm;
mod call;
mod clock;
mod create;
mod faults;
mod group;
mod groups;
mod inside;
mod operations;
mod program;
mod resources;
mod rules;
mod schema;
mod server;
mod sockets;
mod storage;
mod tokens;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use clock::Clock;
use server::Door;
use storage::Account;
use tokens::Tokens;
use world::{ResourceGroup, State, Subscription, key, short};

#[allow(unused_imports, reason = "every test binary uses another part of this")]
pub(crate) use faults::{Fault, Outcome, Rule, Work};
#[allow(unused_imports, reason = "every test binary uses another part of this")]
pub(crate) use world::{Delays, Form, Heard, Region, Settings};

/// The subscription that a double has if none is named.
pub(crate) const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";
/// The tenant of Entra, the application there, and what it proves itself with.
pub(crate) const TENANT: &str = "99999999-8888-7777-6666-555555555555";
pub(crate) const CLIENT: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
pub(crate) const SECRET: &str = "canary-of-the-application-1905";
pub(crate) const ASSERTION: &str = "eyJhbGciOiJSUzI1NiJ9.canary-of-the-assertion.1906";
/// What App Service wants in `X-IDENTITY-HEADER`.
pub(crate) const IDENTITY_HEADER: &str = "canary-of-the-identity-1907";
/// A registry that lets only this user in: `private.example`.
pub(crate) const PRIVATE_REGISTRY: &str = "private.example";
pub(crate) const REGISTRY_USER: &str = "puller";
pub(crate) const REGISTRY_PASSWORD: &str = "canary-of-the-puller-1908";

struct Inner {
    clock: Clock,
    state: Mutex<State>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is in Azure before anybody calls.
pub(crate) struct Builder {
    subscriptions: Vec<(String, Subscription)>,
    accounts: Vec<Account>,
}

impl Builder {
    /// A subscription; what follows is in it.
    pub(crate) fn subscription(mut self, id: &str) -> Self {
        self.subscriptions.push((id.to_lowercase(), Subscription::default()));
        self
    }

    fn last(&mut self) -> &mut (String, Subscription) {
        self.subscriptions.last_mut().expect("a subscription comes first")
    }

    /// A location that it may use.
    pub(crate) fn region(mut self, location: &str, region: Region) -> Self {
        self.last().1.regions.insert(short(location), region);
        self
    }

    /// A resource group.
    pub(crate) fn resource_group(mut self, name: &str, location: &str) -> Self {
        let group = ResourceGroup { name: name.to_owned(), location: short(location), tags: json!({}) };
        self.last().1.resource_groups.insert(name.to_lowercase(), group);
        self
    }

    /// A storage account in a resource group, ready for use.
    pub(crate) fn account(mut self, name: &str, resource_group: &str) -> Self {
        let (subscription, own) = self.last();
        let location = own.resource_groups[&resource_group.to_lowercase()].location.clone();
        let account = Account::new(subscription, resource_group, name, &location, 0);
        self.accounts.push(account);
        self
    }

    /// Opens the ports.
    pub(crate) async fn start(self) -> ArmDouble {
        let mut ports = Vec::new();
        for _ in 0..4 {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            ports.push((listener, address));
        }
        let [arm, authority, metadata, sockets] = <[_; 4]>::try_from(ports).expect("four ports");
        let url = |port: &(TcpListener, std::net::SocketAddr)| format!("http://{}", port.1);
        let tokens = Tokens {
            tenant: TENANT.to_owned(),
            client: CLIENT.to_owned(),
            secret: SECRET.to_owned(),
            assertion: ASSERTION.to_owned(),
            header: IDENTITY_HEADER.to_owned(),
            good: std::collections::BTreeMap::new(),
            asked: 0,
        };
        let mut state = State::new(url(&arm), url(&authority), format!("ws://{}", sockets.1), tokens);
        state.subscriptions = self.subscriptions.into_iter().collect();
        state.accounts = self.accounts.into_iter().map(|account| (account.name.clone(), account)).collect();
        state.registries.insert(PRIVATE_REGISTRY.to_owned(), (REGISTRY_USER.to_owned(), REGISTRY_PASSWORD.to_owned()));
        let (endpoint, authority_at, metadata_at) = (url(&arm), url(&authority), url(&metadata));
        let inner = Arc::new(Inner { clock: Clock::new(), state: Mutex::new(state) });
        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(arm.0, Door::Arm, Arc::clone(&inner)));
        tasks.spawn(server::serve(authority.0, Door::Authority, Arc::clone(&inner)));
        tasks.spawn(server::serve(metadata.0, Door::Metadata, Arc::clone(&inner)));
        tasks.spawn(sockets::serve(sockets.0, Arc::clone(&inner)));
        ArmDouble { inner, endpoint, authority: authority_at, metadata: metadata_at, _tasks: tasks }
    }
}

/// A running double. Dropping it closes its ports and connections.
pub(crate) struct ArmDouble {
    inner: Arc<Inner>,
    endpoint: String,
    authority: String,
    metadata: String,
    _tasks: JoinSet<()>,
}

impl ArmDouble {
    /// An empty Azure.
    pub(crate) fn builder() -> Builder {
        Builder { subscriptions: Vec::new(), accounts: Vec::new() }
    }

    /// [`SUBSCRIPTION`] with `eastus` (`rg-east`, account `steast`) and `westeurope` (`rg-west`, account `stwest`).
    pub(crate) async fn start() -> Self {
        let builder = Self::builder().subscription(SUBSCRIPTION);
        let builder = builder.region("eastus", Region::default()).region("westeurope", Region::default());
        let builder = builder.resource_group("rg-east", "eastus").resource_group("rg-west", "westeurope");
        builder.account("steast", "rg-east").account("stwest", "rg-west").start().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
    }

    /// The base of Azure Resource Manager.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The base of Entra's token endpoint, below which the tenant comes.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The base of the metadata service of a virtual machine.
    pub(crate) fn imds(&self) -> &str {
        &self.metadata
    }

    /// `IDENTITY_ENDPOINT` of App Service; its header is [`IDENTITY_HEADER`].
    pub(crate) fn app_service(&self) -> String {
        format!("{}/msi/token", self.metadata)
    }

    /// Changes settings, delays among them, from now on.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.state().settings);
    }

    /// Changes what a region of [`SUBSCRIPTION`] has room for.
    pub(crate) fn region(&self, location: &str, change: impl FnOnce(&mut Region)) {
        let mut state = self.state();
        let own = state.subscriptions.get_mut(SUBSCRIPTION).expect("the subscription of doubles");
        change(own.regions.get_mut(&short(location)).expect("a region of it"));
    }

    /// Lets time pass at once.
    pub(crate) fn advance(&self, time: Duration) {
        self.inner.clock.skip(time);
    }

    /// Disturbs calls from now on.
    pub(crate) fn fault(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    /// Disturbs nothing any more; gives how many calls were disturbed.
    pub(crate) fn calm(&self) -> u32 {
        let mut state = self.state();
        state.outcomes.clear();
        std::mem::take(&mut state.rules).iter().map(|rule| rule.hits).sum()
    }

    /// Makes up how the next operation of this kind on a group like this ends.
    pub(crate) fn outcome(&self, group: &str, work: Work, outcome: Outcome) {
        self.state().outcomes.push((group.to_owned(), work, outcome));
    }

    /// A stranger takes a DNS label.
    pub(crate) fn take_label(&self, location: &str, label: &str) {
        self.state().taken.insert((short(location), label.to_owned()));
    }

    /// Lets all tokens expire.
    pub(crate) fn expire_tokens(&self) {
        let now = self.inner.clock.now();
        self.state().tokens.good.values_mut().for_each(|until| *until = now.min(*until));
    }

    /// Changes the secret of the application: what agents have is worth nothing any more.
    pub(crate) fn change_secret(&self, secret: &str) {
        let mut state = self.state();
        secret.clone_into(&mut state.tokens.secret);
        secret.clone_into(&mut state.tokens.assertion);
        state.tokens.good.clear();
    }

    /// How many tokens were asked for.
    pub(crate) fn token_requests(&self) -> u32 {
        self.state().tokens.asked
    }

    /// The calls to Azure Resource Manager so far, in their order.
    pub(crate) fn requests(&self) -> Vec<Heard> {
        self.state().heard.clone()
    }

    /// The calls since the last look.
    pub(crate) fn take_requests(&self) -> Vec<Heard> {
        std::mem::take(&mut self.state().heard)
    }

    /// How many calls have had this method and a path like this.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        let path = path.to_lowercase();
        let state = self.state();
        state
            .heard
            .iter()
            .filter(|call| call.method == method && faults::like(&path, &call.path.to_lowercase()))
            .count()
    }

    /// What clients have done that the contract does not allow.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// The violations since the last look, for tests that make some on purpose.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    /// Fails the test if there was any violation.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "the contract was violated:\n{}", violations.join("\n"));
    }

    /// All container groups as GET gives them.
    pub(crate) fn groups(&self) -> Vec<Value> {
        self.state().views(self.inner.clock.now(), &self.inner.clock)
    }

    /// One container group as GET gives it.
    pub(crate) fn group(&self, resource_group: &str, name: &str) -> Option<Value> {
        let now = self.inner.clock.now();
        let state = self.state();
        let group = state.groups.get(&key(SUBSCRIPTION, resource_group, name)).filter(|group| !group.gone(now));
        group.map(|group| group.view(now, &self.inner.clock, true))
    }

    /// One container group's body as it was sent last, secrets and all.
    pub(crate) fn sent(&self, resource_group: &str, name: &str) -> Option<Value> {
        let state = self.state();
        state.groups.get(&key(SUBSCRIPTION, resource_group, name)).map(|group| group.spec.clone())
    }

    /// All shares: account, name, quota in GiB, metadata.
    pub(crate) fn shares(&self) -> Vec<Value> {
        let state = self.state();
        let all = state.accounts.values().flat_map(|account| account.shares.iter().map(move |share| (account, share)));
        all.map(|(account, (name, share))| {
            json!({"account": account.name, "name": name, "quota": share.quota, "metadata": share.metadata})
        })
        .collect()
    }

    /// Says how many bytes are in a share.
    pub(crate) fn fill_share(&self, account: &str, name: &str, bytes: u64) {
        let mut state = self.state();
        let share = state.accounts.get_mut(account).and_then(|account| account.shares.get_mut(name));
        share.expect("the share is there").used = bytes;
    }

    /// A share is lost, with all that is in it.
    pub(crate) fn lose_share(&self, account: &str, name: &str) {
        let mut state = self.state();
        let account = state.accounts.get_mut(account).expect("the account is there");
        account.shares.remove(name).expect("the share is there");
    }

    /// Somebody else makes new keys for an account.
    pub(crate) fn rotate_keys(&self, account: &str) {
        let mut state = self.state();
        state.accounts.get_mut(account).expect("the account is there").keys = [storage::new_key(), storage::new_key()];
    }

    /// A container writes a line now.
    pub(crate) fn write_log(&self, resource_group: &str, group: &str, container: &str, line: &str) {
        let now = self.inner.clock.now();
        let mut state = self.state();
        let group = state.groups.get_mut(&key(SUBSCRIPTION, resource_group, group)).expect("the group is there");
        group.written.entry(container.to_owned()).or_default().push((now, line.to_owned()));
    }

    /// A container's program ends now with this code; its restart policy applies.
    pub(crate) fn kill(&self, resource_group: &str, group: &str, container: &str, code: i64) {
        let now = self.inner.clock.now();
        let mut state = self.state();
        let group = state.groups.get_mut(&key(SUBSCRIPTION, resource_group, group)).expect("the group is there");
        group.kills.entry(container.to_owned()).or_default().push((now, code));
    }

    /// A group is moved to another host: its address is another one.
    pub(crate) fn change_ip(&self, resource_group: &str, group: &str) {
        let mut state = self.state();
        let number = state.number();
        let group = state.groups.get_mut(&key(SUBSCRIPTION, resource_group, group)).expect("the group is there");
        group.ip = groups::address(number);
    }

    /// A group that somebody else made (or an agent long ago) is there, and runs.
    pub(crate) fn plant(&self, resource_group: &str, name: &str, location: &str, tags: &Value) {
        let now = self.inner.clock.now();
        let spec = json!({"location": location, "tags": tags, "properties": {
            "osType": "Linux", "restartPolicy": "Always",
            "containers": [{"name": "web", "properties": {"image": "nginx:1", "resources": {"requests": {"cpu": 1.0, "memoryInGB": 1.0}}}}],
        }});
        let group = group::Group {
            subscription: SUBSCRIPTION.to_owned(),
            resource_group: resource_group.to_owned(),
            name: name.to_owned(),
            location: short(location),
            spec,
            created: now,
            run: group::Run { began: now, fate: group::Fate::Runs, stop: None, delays: Delays::default() },
            deletion: None,
            ip: "20.1.1.1".to_owned(),
            fqdn: None,
            written: std::collections::BTreeMap::new(),
            kills: std::collections::BTreeMap::new(),
        };
        self.state().groups.insert(key(SUBSCRIPTION, resource_group, name), group);
    }

    /// Takes a group away behind everybody's back.
    pub(crate) fn remove_group(&self, resource_group: &str, name: &str) {
        self.state().groups.remove(&key(SUBSCRIPTION, resource_group, name));
    }

    /// Cuts all open sockets without a word.
    pub(crate) fn cut_sockets(&self) {
        self.state().cuts += 1;
    }

    /// What was typed into terminals.
    pub(crate) fn typed(&self) -> Vec<String> {
        self.state().typed.clone()
    }
}
