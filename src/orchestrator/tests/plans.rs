//! Plans say what would be done, and do nothing.

use super::*;
use crate::backend::Action;

fn expecting(compose: &str, plan_hash: &str) -> ProvisionRequest {
    ProvisionRequest { expect_plan: Some(plan_hash.to_owned()), ..provision(compose) }
}

/// Every file below a directory, with its content.
fn tree(path: &std::path::Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(tree(&entry.path()));
        } else {
            all.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    all
}

#[tokio::test]
async fn a_plan_tells_each_object_and_touches_nothing() {
    let house = House::new().await;
    let root = house.root.path().join("tenants");
    let before = tree(&root);
    let compose = "services: {web: {image: 'x:1', command: [sleep, '1000'], ports: ['20080:80', '81']}}";
    let plan = house.orchestrator.plan(provision(compose)).await.unwrap();
    assert_eq!((plan.generation, plan.changed, plan.created), (Generation(1), true, true));
    let steps: Vec<_> = plan.steps.iter().map(|step| (step.object.as_str(), step.action)).collect();
    assert_eq!(steps, [("container web-1", Action::Create), ("network q8-acme_default", Action::Create)]);
    let ports: Vec<_> = plan.ports.iter().map(|port| (port.port, port.host_ports)).collect();
    assert_eq!(
        ports,
        [(80, Some((20080, 20080))), (81, Some((20000, 29999)))],
        "one of the host's range is chosen later"
    );
    assert_eq!(plan.fit.host.unwrap().tenants, 0);
    assert_eq!(tree(&root), before);
    assert!(house.orchestrator.operations(None, 10).is_empty());
    assert!(matches!(house.orchestrator.status(&acme()).await, Err(Error::NoSuchTenant(_))));
}

#[tokio::test]
async fn a_plan_is_refused_as_the_provision_would_be() {
    let house = House::new().await;
    let privileged = "services: {web: {image: 'x:1', privileged: true}}";
    for compose in [privileged, "services: [", "services: {web: {image: 'missing:1'}}"] {
        let planned = house.orchestrator.plan(provision(compose)).await.unwrap_err();
        let provisioned = house.orchestrator.provision(provision(compose)).await.unwrap_err();
        assert_eq!(planned.failure(), provisioned.failure(), "{compose}");
    }
}

#[tokio::test]
async fn only_the_expected_plan_is_carried_out() {
    let house = House::new().await;
    let (one, two) = (web("x:1", 1000), web("x:1", 2000));
    let first = house.orchestrator.plan(provision(&one)).await.unwrap();
    let wrong = house.orchestrator.provision(expecting(&two, &first.plan_hash)).await.unwrap_err();
    assert_eq!((wrong.code(), wrong.field().as_deref()), (ErrorCode::PlanChanged, Some("expect_plan")));
    assert!(!house.root.path().join("tenants/acme").exists());
    house.orchestrator.provision(expecting(&one, &first.plan_hash)).await.unwrap();

    let same = house.orchestrator.plan(provision(&one)).await.unwrap();
    assert_eq!((same.changed, same.generation), (false, Generation(1)));
    assert!(same.steps.iter().all(|step| step.action == Action::Keep));
    assert!(!house.orchestrator.provision(expecting(&one, &same.plan_hash)).await.unwrap().changed);

    let next = house.orchestrator.plan(provision(&two)).await.unwrap();
    let web_step = next.steps.iter().find(|step| step.object == "container web-1").unwrap();
    assert_eq!(web_step.action, Action::Recreate);
    // Somebody else was there first.
    house.update(&web("x:1", 3000)).await;
    let late = house.orchestrator.provision(expecting(&two, &next.plan_hash)).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::PlanChanged);
    let Error::PlanChanged { plan_hash } = late else { panic!("{late}") };
    let update = UpdateRequest { compose: Some(two.clone()), expect_plan: Some(next.plan_hash), ..update() };
    assert_eq!(house.orchestrator.update(update).await.unwrap_err().code(), ErrorCode::PlanChanged);
    assert_eq!(house.orchestrator.status(&acme()).await.unwrap().generation, Generation(2));
    house.orchestrator.provision(expecting(&two, &plan_hash)).await.unwrap();
}

#[tokio::test]
async fn a_plan_waits_for_no_operation() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    let (wait, limit) = (Duration::ZERO, Duration::from_secs(60));
    let op = house.orchestrator.inner.operations.begin(acme(), OperationKind::Update, wait, limit).await.unwrap();
    let plan = house.orchestrator.plan(provision(&web("x:1", 1000))).await.unwrap();
    assert_eq!(plan.operation.unwrap().id, op.id());
}
