//! Azure Container Instances: a tenant is one container group.
//!
//! ```text
//! models   what Azure Resource Manager takes and gives: group, shares, keys, operations, errors
//! names    the names that it allows
//! convert  an accepted deployment -> one container group, or the field that cannot be done; what a change of it needs
//! states   a group as it is -> containers in the words of `domain`
//! prices   what a group costs per hour, by the operator's table
//! ```

#[allow(dead_code, unused_imports, reason = "the backend that uses it is made of these parts next")]
mod convert;
#[allow(dead_code, unused_imports, reason = "the models have every member of the API, used or not")]
mod models;
#[allow(dead_code, reason = "the backend that uses it is made of these parts next")]
mod names;
#[allow(dead_code, reason = "the backend that uses it is made of these parts next")]
mod prices;
#[allow(dead_code, reason = "the backend that uses it is made of these parts next")]
mod states;
