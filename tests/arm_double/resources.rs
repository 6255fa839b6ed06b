//! Subscriptions, resource groups, and what is in them whatever its kind.

use serde_json::{Value, json};

use super::answer::Answer;
use super::arm::Entered;
use super::world::{ResourceGroup, State, short};
use super::{rules, schema};

impl ResourceGroup {
    fn view(&self, subscription: &str) -> Value {
        json!({
            "id": format!("/subscriptions/{subscription}/resourceGroups/{}", self.name), "name": self.name,
            "type": "Microsoft.Resources/resourceGroups", "location": self.location, "tags": self.tags,
            "properties": {"provisioningState": "Succeeded"},
        })
    }
}

impl State {
    pub(super) fn subscription(&self, entered: &Entered<'_>) -> Answer {
        let id = &entered.subscription;
        Answer::json(
            200,
            json!({
                "id": format!("/subscriptions/{id}"), "subscriptionId": id, "displayName": "test", "state": "Enabled",
                "tenantId": self.tokens.tenant,
            }),
        )
    }

    pub(super) fn provider(entered: &Entered<'_>, name: &str) -> Answer {
        let id = format!("/subscriptions/{}/providers/{name}", entered.subscription);
        Answer::json(200, json!({"id": id, "namespace": name, "registrationState": "Registered", "resourceTypes": []}))
    }

    pub(super) fn resource_groups(&mut self, entered: &Entered<'_>) -> Answer {
        let own = self.subscriptions.get(&entered.subscription);
        let groups = own.into_iter().flat_map(|own| own.resource_groups.values());
        let views = groups.map(|group| group.view(&entered.subscription)).collect();
        self.page(entered, views)
    }

    /// The name of a resource group as it was made.
    pub(super) fn known_resource_group(&self, subscription: &str, name: &str) -> Result<String, Answer> {
        let own = self.subscriptions.get(subscription);
        let group = own.and_then(|own| own.resource_groups.get(&name.to_lowercase()));
        group.map(|group| group.name.clone()).ok_or_else(|| {
            Answer::error(404, "ResourceGroupNotFound", format!("Resource group '{name}' could not be found."))
        })
    }

    pub(super) fn resource_group(&mut self, entered: &Entered<'_>, name: &str) -> Answer {
        let method = entered.call.method.as_str();
        let known = self.known_resource_group(&entered.subscription, name);
        match (method, &known) {
            ("HEAD", known) => return Answer::empty(if known.is_ok() { 204 } else { 404 }),
            ("PUT", _) | (_, Ok(_)) => {}
            (_, Err(refusal)) => return refusal.clone(),
        }
        if method == "PUT" || method == "PATCH" {
            let members = if method == "PUT" { schema::RESOURCE_GROUP } else { schema::TAGS };
            if let Err(refusal) = self.hold(entered, members) {
                return refusal;
            }
            if let Some(refusal) = rules::wrong_tags(&entered.body["tags"]).into_iter().next() {
                self.violation(format!("{name}: {}", refusal.message));
                return Answer::error(400, refusal.code, refusal.message);
            }
        }
        let Some(own) = self.subscriptions.get_mut(&entered.subscription) else { return Answer::empty(404) };
        let lower = name.to_lowercase();
        match method {
            "PUT" => {
                let location = short(entered.body["location"].as_str().unwrap_or_default());
                if !own.regions.contains_key(&location) {
                    return Answer::error(
                        400,
                        "LocationNotAvailableForResourceGroup",
                        format!("The provided location '{location}' is not available for resource group."),
                    );
                }
                if own.resource_groups.get(&lower).is_some_and(|group| group.location != location) {
                    return Answer::error(
                        409,
                        "InvalidResourceGroupLocation",
                        format!(
                            "Invalid resource group location '{location}'. The Resource group already exists in another location."
                        ),
                    );
                }
                let status = if known.is_ok() { 200 } else { 201 };
                let group = ResourceGroup {
                    name: known.unwrap_or_else(|_| name.to_owned()),
                    location,
                    tags: entered.body["tags"].clone(),
                };
                let view = group.view(&entered.subscription);
                own.resource_groups.insert(lower, group);
                Answer::json(status, view)
            }
            "DELETE" => {
                own.resource_groups.remove(&lower);
                self.groups.retain(|key, _| key.0 != entered.subscription || key.1 != lower);
                self.accounts.retain(|_, account| {
                    account.subscription != entered.subscription || account.resource_group.to_lowercase() != lower
                });
                Answer::empty(200)
            }
            _ => match own.resource_groups.get_mut(&lower) {
                Some(group) => {
                    if method == "PATCH" {
                        group.tags = entered.body["tags"].clone();
                    }
                    Answer::json(200, group.view(&entered.subscription))
                }
                None => Answer::empty(404),
            },
        }
    }

    /// Container groups and storage accounts, filtered as `$filter` says.
    pub(super) fn resources(&mut self, entered: &Entered<'_>, resource_group: Option<&str>) -> Answer {
        let filter = match entered.call.parameter("$filter").map(Filter::parse) {
            None => None,
            Some(Some(filter)) => Some(filter),
            Some(None) => {
                self.violation(format!("a filter that is not understood: {}", entered.call.target));
                return Answer::error(
                    400,
                    "InvalidFilterInQueryString",
                    "Invalid $filter in the query string. A filter by tag can't be combined with others.",
                );
            }
        };
        let lag = self.settings.delays.index;
        let groups = self.groups.values().filter(|group| {
            group.subscription == entered.subscription
                && resource_group.is_none_or(|own| group.resource_group.eq_ignore_ascii_case(own))
                && (lag == 0 || group.created + lag <= entered.now)
        });
        let groups = groups.map(|group| {
            json!({"id": group.id(), "name": group.name, "type": "Microsoft.ContainerInstance/containerGroups",
                "location": group.location, "tags": group.spec["tags"]})
        });
        let accounts = self.accounts.values().filter(|account| {
            account.subscription == entered.subscription
                && resource_group.is_none_or(|own| account.resource_group.eq_ignore_ascii_case(own))
        });
        let accounts = accounts.map(|account| {
            json!({"id": account.id(), "name": account.name, "type": "Microsoft.Storage/storageAccounts",
                "location": account.location, "tags": account.tags, "kind": "StorageV2"})
        });
        let all = groups
            .chain(accounts)
            .filter(|resource| filter.as_ref().is_none_or(|filter| filter.fits(resource)))
            .collect();
        self.page(entered, all)
    }
}

enum Filter {
    Tag(String, Option<String>),
    Kind(String),
}

impl Filter {
    /// `tagName eq 'a'`, `tagName eq 'a' and tagValue eq 'b'`, `resourceType eq 'c'`.
    fn parse(text: &str) -> Option<Self> {
        let terms: Vec<(&str, String)> = text
            .split(" and ")
            .map(|term| {
                let (name, value) = term.trim().split_once(" eq ")?;
                let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
                Some((name.trim(), value.replace("''", "'")))
            })
            .collect::<Option<_>>()?;
        match terms.as_slice() {
            [("tagName", name)] => Some(Self::Tag(name.clone(), None)),
            [("tagName", name), ("tagValue", value)] => Some(Self::Tag(name.clone(), Some(value.clone()))),
            [("resourceType", kind)] => Some(Self::Kind(kind.clone())),
            _ => None,
        }
    }

    fn fits(&self, resource: &Value) -> bool {
        match self {
            Self::Kind(kind) => resource["type"].as_str().is_some_and(|own| own.eq_ignore_ascii_case(kind)),
            // Names of tags know no upper and lower case, values do.
            Self::Tag(name, value) => resource["tags"].as_object().into_iter().flatten().any(|(own, held)| {
                own.eq_ignore_ascii_case(name) && value.as_ref().is_none_or(|value| held == value.as_str())
            }),
        }
    }
}
