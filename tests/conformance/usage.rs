//! What containers use and what a backend holds.

use q8_agent::backend::{Backend, Used};

use super::{SLEEPS, Tenant, World, eventually, service, stack};

/// Keeps a processor busy where there are real ones.
const WORKS: &str = r#"entrypoint: ["dd", "if=/dev/zero", "of=/dev/null"]"#;

pub(crate) async fn usage_is_told(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "use");
    let mut other = Tenant::new(backend, world, "use-other");
    tenant.up(&stack(&[("idle", &[SLEEPS]), ("web", &[SLEEPS, "scale: 2"])], "")).await.expect("it comes up");
    other.up(&stack(&[("web", &[SLEEPS])], "")).await.expect("it comes up");
    let first = backend.usage(Some(&tenant.owner)).await.expect("usage");
    let named: Vec<(&str, u32)> = first.iter().map(|usage| (usage.service.as_str(), usage.number)).collect();
    assert_eq!(named, [("idle", 1), ("web", 1), ("web", 2)]);
    let containers = tenant.containers().await;
    for usage in &first {
        let key = format!("{}-{}", usage.service, usage.number);
        let status = &containers[&key].status;
        assert_eq!((&usage.id, &usage.name, &usage.tenant), (&status.id, &status.name, &tenant.owner.subdomain));
        let used = usage.used;
        assert!(usage.running && used.at.is_some() && used.memory > 0, "{usage:?}");
        assert!(used.memory_limit.is_some_and(|limit| limit > used.memory), "{usage:?}");
        assert!(used.pids.is_none_or(|pids| pids >= 1), "{usage:?}");
    }
    // Counters only grow, and the clock with them.
    let second = backend.usage(Some(&tenant.owner)).await.expect("usage");
    for (before, after) in first.iter().zip(&second) {
        assert!(after.used.cpu >= before.used.cpu && after.used.at > before.used.at, "{before:?} {after:?}");
    }
    let all = backend.usage(None).await.expect("usage");
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(all.iter().filter(|usage| usage.tenant == other.owner.subdomain).count(), 1);

    backend.stop(tenant.deployed(), None, &Tenant::run()).await.expect("it stops");
    let stopped = backend.usage(Some(&tenant.owner)).await.expect("usage");
    assert_eq!(stopped.len(), 3, "{stopped:?}");
    assert!(stopped.iter().all(|usage| !usage.running && usage.used == Used::default()), "{stopped:?}");
    tenant.purge().await;
    other.purge().await;
    assert!(backend.usage(None).await.expect("usage").is_empty());
}

pub(crate) async fn what_works_uses_cpu(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "work");
    let works = [WORKS, "cpus: 0.5", "mem_limit: 64m"];
    tenant.up(&stack(&[("busy", &works), ("idle", &[SLEEPS])], "")).await.expect("it comes up");
    let owner = tenant.owner.clone();
    let cpu = async || {
        let all = backend.usage(Some(&owner)).await.expect("usage");
        all.into_iter().find(|usage| usage.service == service("busy")).expect("it is there").used.cpu
    };
    let before = cpu().await;
    eventually("CPU time has been counted", || async { cpu().await > before }).await;
    tenant.purge().await;
}

pub(crate) async fn what_is_held_is_told(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "holds");
    let writes = r#"entrypoint: ["sh", "-c", "echo 0123456789 >/data/file; sleep 3600"]"#;
    let text = stack(&[("db", &[writes, "volumes: ['store:/data']"])], "volumes: {store: {}}\n");
    tenant.up(&text).await.expect("it comes up");
    let held = backend.holdings().await.expect("what it holds");
    assert!(held.images.is_some_and(|count| count >= 1), "{held:?}");
    let volume = format!("{}_store", tenant.owner.project());
    eventually("the volume has its size", || async {
        let sizes = backend.volume_sizes().await.expect("sizes").expect("both backends know them");
        let own = sizes.iter().find(|size| size.owner.as_ref() == Some(&tenant.owner.subdomain));
        own.is_some_and(|size| size.name.as_str() == volume && size.bytes >= 11)
    })
    .await;
    tenant.purge().await;
}
