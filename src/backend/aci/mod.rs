//! Tenants in Azure Container Instances, through Azure Resource Manager.

#[allow(dead_code, unused_imports, reason = "the backend over it is not there yet")]
mod arm;
