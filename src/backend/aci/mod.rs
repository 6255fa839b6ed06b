//! Tenants in Azure Container Instances, through Azure Resource Manager.

#[expect(dead_code, reason = "the backend over it is not there yet")]
mod arm;
