//! Storage accounts, their keys and their file shares.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::Answer;
use super::arm::Entered;
use super::clock::Millis;
use super::schema;
use super::world::{State, short};

pub(super) struct Account {
    pub(super) subscription: String,
    pub(super) resource_group: String,
    pub(super) name: String,
    pub(super) location: String,
    pub(super) tags: Value,
    pub(super) keys: [String; 2],
    pub(super) ready: Millis,
    pub(super) shares: BTreeMap<String, Share>,
    /// Until when the names of deleted shares are refused.
    pub(super) going: BTreeMap<String, Millis>,
}

pub(super) struct Share {
    pub(super) quota: i64,
    pub(super) metadata: Value,
    pub(super) tier: Value,
    pub(super) written: Millis,
    /// Bytes that tests say are in it.
    pub(super) used: u64,
}

pub(super) fn new_key() -> String {
    let halves = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    STANDARD.encode(halves.iter().flat_map(|half| *half.as_bytes()).collect::<Vec<u8>>())
}

impl Account {
    pub(super) fn new(subscription: &str, resource_group: &str, name: &str, location: &str, ready: Millis) -> Self {
        Self {
            subscription: subscription.to_owned(),
            resource_group: resource_group.to_owned(),
            name: name.to_owned(),
            location: short(location),
            tags: json!({}),
            keys: [new_key(), new_key()],
            ready,
            shares: BTreeMap::new(),
            going: BTreeMap::new(),
        }
    }

    pub(super) fn id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Storage/storageAccounts/{}",
            self.subscription, self.resource_group, self.name
        )
    }

    pub(super) fn view(&self, now: Millis) -> Value {
        let state = if self.ready <= now { "Succeeded" } else { "Creating" };
        json!({
            "id": self.id(), "name": self.name, "type": "Microsoft.Storage/storageAccounts", "location": self.location,
            "tags": self.tags, "kind": "StorageV2", "sku": {"name": "Standard_LRS", "tier": "Standard"},
            "properties": {"provisioningState": state, "primaryLocation": self.location},
        })
    }

    fn share_view(&self, name: &str, share: &Share, stats: bool, entered: &Entered<'_>) -> Value {
        let mut properties = json!({
            "lastModifiedTime": entered.clock.stamp(share.written),
            "shareQuota": share.quota,
            "accessTier": if share.tier.is_null() { json!("TransactionOptimized") } else { share.tier.clone() },
            "enabledProtocols": "SMB",
            "leaseStatus": "Unlocked",
            "leaseState": "Available",
        });
        if share.metadata.as_object().is_some_and(|metadata| !metadata.is_empty()) {
            properties["metadata"] = share.metadata.clone();
        }
        if stats {
            properties["shareUsageBytes"] = json!(share.used);
        }
        json!({
            "id": format!("{}/fileServices/default/shares/{name}", self.id()), "name": name,
            "type": "Microsoft.Storage/storageAccounts/fileServices/shares",
            "etag": format!("\"0x{:X}\"", share.written), "properties": properties,
        })
    }
}

impl State {
    /// Why a share cannot be mounted.
    pub(super) fn mount_problem(&self, file: &Value) -> Option<&'static str> {
        const ABSENT: &str = "mount error(2): No such file or directory";
        const DENIED: &str = "mount error(13): Permission denied";
        let Some(account) = self.accounts.get(file["storageAccountName"].as_str().unwrap_or_default()) else {
            return Some("mount error: could not resolve address");
        };
        if let Some(key) = file["storageAccountKey"].as_str()
            && !account.keys.iter().any(|own| own == key)
        {
            return Some(DENIED);
        }
        (!account.shares.contains_key(file["shareName"].as_str().unwrap_or_default())).then_some(ABSENT)
    }

    pub(super) fn list_accounts(&mut self, entered: &Entered<'_>, resource_group: Option<&str>) -> Answer {
        let mine = |account: &&Account| {
            account.subscription == entered.subscription
                && resource_group.is_none_or(|own| account.resource_group.eq_ignore_ascii_case(own))
        };
        let views = self.accounts.values().filter(mine).map(|account| account.view(entered.now)).collect();
        self.page(entered, views)
    }

    /// A call to one account or something in it.
    pub(super) fn account_call(
        &mut self,
        entered: &Entered<'_>,
        resource_group: &str,
        name: &str,
        rest: &[&str],
        names: &[&str],
    ) -> Answer {
        let method = entered.call.method.as_str();
        if (method, rest) == ("PUT", &[][..]) {
            return self.put_account(entered, resource_group, name);
        }
        let here = |account: &&mut Account| {
            account.subscription == entered.subscription && account.resource_group.eq_ignore_ascii_case(resource_group)
        };
        let now = entered.now;
        let Some(account) = self.accounts.get_mut(&name.to_lowercase()).filter(here) else {
            if (method, rest) == ("DELETE", &[][..]) {
                return Answer::empty(204);
            }
            return Answer::error(
                404,
                "ResourceNotFound",
                format!(
                    "The Resource 'Microsoft.Storage/storageAccounts/{name}' under resource group '{resource_group}' was not found."
                ),
            );
        };
        if now < account.ready && (method, rest) != ("GET", &[][..]) {
            return Answer::error(
                409,
                "StorageAccountIsNotProvisioned",
                format!(
                    "The storage account provisioning state must be 'Succeeded' before executing the operation: {name}."
                ),
            );
        }
        match (method, rest) {
            ("GET", []) => Answer::json(200, account.view(now)),
            ("DELETE", []) => {
                self.accounts.remove(&name.to_lowercase());
                Answer::empty(200)
            }
            ("POST", ["listkeys"]) => keys(account),
            ("POST", ["regeneratekey"]) => match self.hold(entered, schema::REGENERATE) {
                Ok(()) => {
                    let at = usize::from(entered.body["keyName"] == "key2");
                    match self.accounts.get_mut(&name.to_lowercase()) {
                        Some(account) => {
                            account.keys[at] = new_key();
                            keys(account)
                        }
                        None => Answer::empty(404),
                    }
                }
                Err(refusal) => refusal,
            },
            ("GET", ["fileservices", "default", "shares"]) => {
                let known = |word: &str| matches!(word.trim(), "deleted" | "snapshots");
                if entered.call.parameter("$expand").is_some_and(|expand| !expand.split(',').all(known)) {
                    self.violation(format!(
                        "{}: a list of shares has deleted ones and snapshots to expand",
                        entered.call.target
                    ));
                    return Answer::error(400, "InvalidQueryParameterValue", "The value of $expand is invalid.");
                }
                let shares = &account.shares;
                let mut views: Vec<Value> =
                    shares.iter().map(|(share, held)| account.share_view(share, held, false, entered)).collect();
                if !self.settings.listed_metadata {
                    for view in &mut views {
                        view["properties"].as_object_mut().map(|properties| properties.shift_remove("metadata"));
                    }
                }
                self.page(entered, views)
            }
            ("PUT" | "GET" | "PATCH" | "DELETE", ["fileservices", "default", "shares", _]) => {
                self.share_call(entered, &name.to_lowercase(), names[3])
            }
            _ => self.nowhere(entered.call),
        }
    }

    fn put_account(&mut self, entered: &Entered<'_>, resource_group: &str, name: &str) -> Answer {
        if let Err(refusal) = self.hold(entered, schema::ACCOUNT) {
            return refusal;
        }
        let right =
            (3..=24).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !right {
            self.violation(format!("{name}: a wrong name of a storage account"));
            return Answer::error(
                400,
                "AccountNameInvalid",
                format!(
                    "{name} is not a valid storage account name. Storage account name must be between 3 and 24 characters in length and use numbers and lower-case letters only."
                ),
            );
        }
        if let Some(account) = self.accounts.get_mut(name) {
            let own = account.subscription == entered.subscription
                && account.resource_group.eq_ignore_ascii_case(resource_group);
            if !own {
                return Answer::error(
                    409,
                    "StorageAccountAlreadyTaken",
                    format!("The storage account named {name} is already taken."),
                );
            }
            account.tags = entered.body["tags"].clone();
            return Answer::json(200, account.view(entered.now));
        }
        let location = entered.body["location"].as_str().unwrap_or_default();
        let mut account = Account::new(
            &entered.subscription,
            resource_group,
            name,
            location,
            entered.now + self.settings.delays.account,
        );
        account.tags = entered.body["tags"].clone();
        self.accounts.insert(name.to_owned(), account);
        let link = format!(
            "{}/subscriptions/{}/providers/Microsoft.Storage/locations/{}/asyncoperations/{name}?monitor=true&api-version={}",
            self.endpoint,
            entered.subscription,
            short(location),
            entered.version
        );
        Answer::empty(202).header("location", link).retry_after(Some(self.settings.retry_after.unwrap_or(0)))
    }

    /// The `Location` of a new account.
    pub(super) fn poll_account(&mut self, entered: &Entered<'_>, name: &str) -> Answer {
        match self.accounts.get(name) {
            Some(account) if account.ready <= entered.now => Answer::json(200, account.view(entered.now)),
            Some(_) => Answer::empty(202)
                .header("location", format!("{}{}", self.endpoint, entered.call.target))
                .retry_after(Some(self.settings.retry_after.unwrap_or(0))),
            None => Answer::error(404, "ResourceNotFound", "The operation could not be found."),
        }
    }

    fn share_call(&mut self, entered: &Entered<'_>, account: &str, name: &str) -> Answer {
        let method = entered.call.method.as_str();
        if matches!(method, "PUT" | "PATCH")
            && let Err(refusal) =
                self.hold(entered, schema::SHARE).and_then(|()| self.share_rules(&entered.body["properties"], name))
        {
            return refusal;
        }
        if method == "DELETE" {
            return self.delete_share(account, name, entered.now);
        }
        let now = entered.now;
        let Some(account) = self.accounts.get_mut(account) else { return Answer::empty(404) };
        let given = &entered.body["properties"];
        if method == "PUT" && !account.shares.contains_key(name) {
            if account.going.get(name).is_some_and(|until| now < *until) {
                return Answer::error(
                    409,
                    "ShareBeingDeleted",
                    "The specified share is being deleted. Try operation later.",
                );
            }
            let share = Share {
                quota: given["shareQuota"].as_i64().unwrap_or(5120),
                metadata: given["metadata"].clone(),
                tier: given["accessTier"].clone(),
                written: now,
                used: 0,
            };
            account.shares.insert(name.to_owned(), share);
            let view = account.share_view(name, &account.shares[name], false, entered);
            return Answer::json(201, view);
        }
        let Some(share) = account.shares.get_mut(name) else {
            return Answer::error(404, "ShareNotFound", "The specified share does not exist.");
        };
        if method != "GET" {
            share.quota = given["shareQuota"].as_i64().unwrap_or(share.quota);
            if !given["metadata"].is_null() {
                share.metadata = given["metadata"].clone();
            }
            share.written = now;
        }
        let stats = entered.call.parameter("$expand").is_some_and(|expand| expand.contains("stats"));
        Answer::json(200, account.share_view(name, &account.shares[name], stats, entered))
    }

    fn share_rules(&mut self, properties: &Value, name: &str) -> Result<(), Answer> {
        let right = (3..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.contains("--");
        if !right {
            self.violation(format!("{name}: a wrong name of a share"));
            return Err(Answer::error(
                400,
                "InvalidResourceName",
                "The specified resource name contains invalid characters.",
            ));
        }
        if properties["shareQuota"].as_i64().is_some_and(|quota| !(1..=102_400).contains(&quota)) {
            self.violation(format!("{name}: a wrong quota: {}", properties["shareQuota"]));
            return Err(Answer::error(
                400,
                "InvalidHeaderValue",
                "The value for one of the HTTP headers is not in the correct format: x-ms-share-quota.",
            ));
        }
        for (key, value) in properties["metadata"].as_object().into_iter().flatten() {
            // They travel as headers: names are identifiers, values are printable.
            let first = key.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            let right = first && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let printable = value.as_str().is_some_and(|value| value.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
            if !right || !printable {
                self.violation(format!("{name}: wrong metadata: {key}"));
                return Err(Answer::error(
                    400,
                    "InvalidMetadata",
                    "The specified metadata is invalid. It includes characters that are not permitted.",
                ));
            }
        }
        Ok(())
    }

    fn delete_share(&mut self, account: &str, name: &str, now: Millis) -> Answer {
        let mounted = self.groups.values().find(|group| {
            let volumes = group.spec["properties"]["volumes"].as_array();
            volumes.into_iter().flatten().any(|volume| {
                volume["azureFile"]["shareName"] == name && volume["azureFile"]["storageAccountName"] == account
            })
        });
        if let Some(group) = mounted {
            let text = format!("the share {name} was deleted while {} mounts it", group.name);
            self.violation(text);
        }
        let until = now + self.settings.delays.share;
        let Some(account) = self.accounts.get_mut(account) else { return Answer::empty(404) };
        if account.shares.remove(name).is_none() {
            return Answer::empty(204);
        }
        account.going.insert(name.to_owned(), until);
        Answer::empty(200)
    }
}

fn keys(account: &Account) -> Answer {
    let keys = account.keys.iter().enumerate();
    let keys: Vec<Value> = keys
        .map(|(at, value)| json!({"keyName": format!("key{}", at + 1), "value": value, "permissions": "Full"}))
        .collect();
    Answer::json(200, json!({ "keys": keys }))
}
