//! Azure Container Instances: a tenant is one container group.
//!
//! ```text
//! arm      calls to Azure Resource Manager: tokens, retries, long-running operations, write limits
//! models   what it takes and gives: group, shares, keys, operations, errors
//! names    the names that it allows
//! convert  an accepted deployment -> one container group, or the field that cannot be done; what a change of it needs
//! states   a group as it is -> containers in the words of `domain`
//! prices   what a group costs per hour, by the operator's table
//! ```

mod arm;
mod convert;
#[allow(dead_code, unused_imports, reason = "the models have every member of the API, used or not")]
mod models;
mod names;
mod prices;
mod states;
