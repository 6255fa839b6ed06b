//! Azure Container Instances: a tenant is one container group.
//!
//! ```text
//! models   what Azure Resource Manager takes and gives: group, shares, keys, operations, errors
//! names    the names that it allows
//! convert  an accepted deployment -> one container group, or the field that cannot be done; what a change of it needs
//! states   a group as it is -> containers in the words of `domain`
//! prices   what a group costs per hour, by the operator's table
//! ```

mod convert;
mod models;
mod names;
mod prices;
mod states;
