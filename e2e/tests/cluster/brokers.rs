//! A Broker does not touch objects of others, reports every refusal in its conditions, and reverts edits of its objects.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use leveret_api::{Broker, Queue};
use serde_json::json;

use crate::clients::Clients;
use crate::figures::figure;
use crate::repair::kill_operator;
use crate::shop::{Shop, is_not_ready, is_ready};
use crate::world::{World, kubectl, wait, wait_gone};

fn broker(name: &str, spec: &str) -> String {
    format!("---\napiVersion: leveret.dev/v1alpha1\nkind: Broker\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

const SMALL: &str = "storage: {size: 320Mi}, resources: {limits: {memory: 512Mi}}";

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_others_are_neither_changed_nor_deleted() -> Result<()> {
    let world = World::new().await?;
    world.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop-config}\ndata: {theirs: \"1\"}\n",
    )?;
    let (services, maps) = (world.api::<Service>(), world.api::<ConfigMap>());
    let (service, map) = (services.get("shop").await?, maps.get("shop-config").await?);
    world.apply(&broker("shop", SMALL))?;
    let brokers = world.api::<Broker>();
    let message = is_not_ready(&brokers, "shop", "NameTaken").await?;
    ensure!(message.contains("Service") && message.contains("shop-config"), "{message}");
    ensure!(world.api::<StatefulSet>().get_opt("shop").await?.is_none(), "a part of the Broker was created");
    brokers.delete("shop", &DeleteParams::default()).await?;
    wait_gone(&brokers, "shop").await?;
    ensure!(
        services.get("shop").await? == service && maps.get("shop-config").await? == map,
        "the objects of others were changed"
    );

    // Two Brokers whose children would have the same name.
    services.delete("shop", &DeleteParams::default()).await?;
    maps.delete("shop-config", &DeleteParams::default()).await?;
    world.apply(&broker("shop", SMALL))?;
    is_ready(&brokers, "shop").await?;
    let nodes = services.get("shop-nodes").await?;
    world.apply(&broker("shop-nodes", SMALL))?;
    let message = is_not_ready(&brokers, "shop-nodes", "NameTaken").await?;
    ensure!(message.contains("controlled by Broker shop"), "{message}");
    ensure!(services.get("shop-nodes").await? == nodes, "the Service was changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_refusal_is_reported_in_the_conditions_with_its_reason() -> Result<()> {
    let world = World::new().await?;
    let cases = [
        ("annotation", "service: {annotations: {\"bad key!\": x}}", "Invalid", "bad key!"),
        ("label", "podTemplate: {labels: {a: \"b c\"}}", "Invalid", "b c"),
        ("policy", "podTemplate: {spec: {dnsPolicy: Foo}}", "Invalid", "Foo"),
        ("field", "podTemplate: {spec: {tolerationz: [{key: a}]}}", "InvalidSpec", "tolerationz"),
        ("class", "storage: {size: 320Mi, className: none-such}", "Unschedulable", "none-such"),
        ("priority", "podTemplate: {spec: {priorityClassName: none-such}}", "PodNotCreated", "none-such"),
        ("node", "podTemplate: {spec: {nodeSelector: {none: such}}}", "Unschedulable", "node"),
        ("config", "storage: {size: 320Mi}, config: {nonsense_key: 1}", "CrashLoopBackOff", "nonsense_key"),
        ("image", "storage: {size: 320Mi}, image: \"leveret.local/none-such:1\"", "ImagePullBackOff", "none-such"),
    ];
    world.apply(&cases.map(|(name, spec, ..)| broker(name, spec)).concat())?;
    let brokers = world.api::<Broker>();
    for (name, spec, reason, words) in cases {
        let what = format!("refused with reason {reason} and a message with {words}");
        let reported = wait(&brokers, name, &what, |broker: &Broker| {
            let conditions = broker.status.iter().flat_map(|status| &status.conditions);
            let condition = |type_: &str| conditions.clone().find(|one| one.type_ == type_);
            condition("Ready").is_some_and(|ready| ready.reason == reason && ready.message.contains(words))
                && condition("Degraded").is_some_and(|degraded| degraded.status == "True" && degraded.reason == reason)
        });
        reported.await.with_context(|| spec)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_parsed_does_not_stop_the_operator() -> Result<()> {
    let shop = Shop::open().await?;
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/storage/properties/size";
    let size = kubectl(&["get", "crd", "brokers.leveret.dev", "--output", "json"])?;
    let size: serde_json::Value = serde_json::from_str(&size)?;
    let size = size.pointer(at).context("the definition has no size")?.clone();
    let define = |size: serde_json::Value| {
        let patch = json!([{"op": "replace", "path": at, "value": size}]).to_string();
        kubectl(&["patch", "crd", "brokers.leveret.dev", "--type=json", "--patch", &patch])
    };
    // As in an older version of the definition.
    define(json!({"x-kubernetes-int-or-string": true, "nullable": true}))?;
    let brokers = shop.world.api::<Broker>();
    let told = async {
        leveret_e2e::wait::until_ok(crate::world::PATIENCE, "a size of null to be stored".to_owned(), || {
            shop.world.apply(&broker("bad", "storage: {size: 10Gi}"))?;
            let null = "[{\"op\":\"replace\",\"path\":\"/spec/storage/size\",\"value\":null}]";
            shop.world.kubectl(&["patch", "broker.leveret.dev", "bad", "--type=json", "--patch", null])?;
            let stored =
                shop.world.kubectl(&["get", "broker.leveret.dev", "bad", "--output", "jsonpath={.spec.storage}"])?;
            ensure!(!stored.contains("Gi"), "{stored}");
            Ok(())
        })?;
        kill_operator(&shop.world).await?;
        shop.world.apply(
            "apiVersion: leveret.dev/v1alpha1\nkind: Queue\nmetadata: {name: later}\nspec: {brokerRef: {name: shop}}\n",
        )?;
        is_ready(&shop.world.api::<Queue>(), "later").await?;
        let told =
            || shop.world.kubectl(&["get", "broker.leveret.dev", "bad", "--output", "jsonpath={.status.conditions}"]);
        leveret_e2e::wait::until_ok(crate::world::PATIENCE, "the Broker's condition".to_owned(), || {
            let told = told()?;
            ensure!(told.contains("Unreadable"), "{told}");
            Ok(())
        })?;
        shop.world.kubectl(&[
            "patch",
            "broker.leveret.dev",
            "bad",
            "--type=merge",
            "--patch",
            "{\"spec\":{\"storage\":{\"size\":\"320Mi\"}}}",
        ])
    };
    let told = told.await;
    define(size)?;
    told?;
    is_ready(&brokers, "bad").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_secret_was_edited_or_deleted_clients_can_still_log_in() -> Result<()> {
    let mut shop = Shop::open().await?;
    let (secrets, pods) = (shop.world.api::<Secret>(), shop.world.api::<Pod>());
    let before = pods.get("shop-0").await?;
    let begin = Instant::now();
    let password = json!({"stringData": {"password": "new%one"}});
    secrets.patch("shop-default-user", &PatchParams::default(), &Patch::Merge(password)).await?;
    let agrees = |secret: &Secret| {
        let data = secret.data.as_ref().and_then(|data| data.get("connection_string"));
        data.is_some_and(|text| String::from_utf8_lossy(&text.0).contains(":new%25one@"))
    };
    wait(&secrets, "shop-default-user", "consistent", agrees).await?;
    let after = shop.another_pod(&before).await?;
    figure("a password edited in the Secret -> the broker runs with it", begin.elapsed());
    shop.log_in_again().await?;
    shop.forward()?.queue_status("billing", 200)?;
    shop.world.apply(
        "apiVersion: leveret.dev/v1alpha1\nkind: Queue\nmetadata: {name: later}\nspec: {brokerRef: {name: shop}}\n",
    )?;
    is_ready(&shop.world.api::<Queue>(), "later").await?;

    let old = secrets.get("shop-default-user").await?;
    secrets.delete("shop-default-user", &DeleteParams::default()).await?;
    let same = |secret: &Secret| secret.uid() != old.uid() && secret.data == old.data;
    wait(&secrets, "shop-default-user", "back with the same login", same).await?;
    let without = json!({"data": {"username": null}});
    secrets.patch("shop-default-user", &PatchParams::default(), &Patch::Merge(without)).await?;
    wait(&secrets, "shop-default-user", "complete again", |secret: &Secret| secret.data == old.data).await?;
    Clients::start(&shop, "clients").await?.run("pika", &["roundtrip"])?;
    ensure!(pods.get("shop-0").await?.uid() == after.uid(), "the pod was restarted although the login is the same");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_the_brokers_objects_are_reverted() -> Result<()> {
    let shop = Shop::open().await?;
    let (sets, services) = (shop.world.api::<StatefulSet>(), shop.world.api::<Service>());
    let (set, service) = (sets.get("shop").await?, services.get("shop").await?);
    let edits: [&[&str]; 5] = [
        &["set", "image", "statefulset/shop", "leveret=leveret.local/none-such:1"],
        &["set", "env", "statefulset/shop", "MORE=1", "LEVERET_DEFAULT_USER=evil"],
        &["scale", "statefulset/shop", "--replicas=3"],
        &[
            "patch",
            "service",
            "shop",
            "--type=json",
            "--patch",
            "[{\"op\":\"replace\",\"path\":\"/spec/ports/0/port\",\"value\":5673}]",
        ],
        &["patch", "service", "shop", "--type=merge", "--patch", "{\"spec\":{\"selector\":{\"app\":\"evil\"}}}"],
    ];
    for edit in edits {
        shop.world.kubectl(edit)?;
        wait(&sets, "shop", &format!("as it was before {edit:?}"), |now: &StatefulSet| now.spec == set.spec).await?;
        wait(&services, "shop", &format!("as it was before {edit:?}"), |now: &Service| now.spec == service.spec)
            .await?;
    }
    is_ready(&shop.world.api::<Broker>(), "shop").await?;
    Clients::start(&shop, "clients").await?.run("lapin", &["roundtrip"])?;
    Ok(())
}
