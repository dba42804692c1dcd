//! Invalid specs: the API server refuses them, or a condition says what to do.

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use leveret_api::{Binding, Broker, Queue};
use serde_json::json;

use crate::repair::kill_operator;
use crate::shop::{Shop, is_not_ready, is_ready};
use crate::world::{PATIENCE, World};

fn object(kind: &str, spec: &str) -> String {
    format!("apiVersion: leveret.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: wrong}}\nspec: {{{spec}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_specs_that_are_invalid_by_themselves() -> Result<()> {
    let world = World::new().await?;
    for (kind, spec, words) in [
        ("Broker", "replicas: 2", "replicas must be 1, 3 or 5"),
        ("Broker", "replicas: 0", "replicas must be 1, 3 or 5"),
        ("Broker", "replica: 1", "replica"),
        ("Broker", "storage: {size: lots}", "size"),
        ("Broker", "storage: {size: -5Gi}", "size"),
        ("Broker", "storage: {size: -5}", "larger than 0"),
        ("Broker", "storage: {size: 0}", "larger than 0"),
        ("Broker", "storage: {size: 0Gi}", "larger than 0"),
        ("Broker", "storage: {size: 9Ei}", "smaller than 8E"),
        ("Broker", "storage: {size: 1Tb}", "size"),
        ("Broker", "resources: {limits: {memory: plenty}}", "memory"),
        ("Broker", "resources: {limits: {cpu: \"-1\"}}", "cpu"),
        ("Broker", "resources: {requests: {memory: 2Gi}, limits: {memory: 1024Mi}}", "larger than the limit"),
        ("Broker", "resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}", "larger than the limit"),
        ("Broker", "resources: {limits: {memry: 1Gi}}", "memory"),
        ("Broker", "image: \"a b\"", "image"),
        ("Broker", "service: {type: LoadBalancer, loadBalancerSourceRanges: [anybody]}", "loadBalancerSourceRanges"),
        ("Broker", "service: {type: NodePort, loadBalancerSourceRanges: [192.0.2.0/24]}", "of type LoadBalancer"),
        ("Queue", "brokerRef: {name: shop}, name: amq.mine", "amq."),
        ("Queue", "brokerRef: {name: shop}, name: \"a\\nb\"", "no line breaks"),
        ("Binding", "brokerRef: {name: shop}, source: \"a\\rb\", destination: q", "no line breaks"),
        ("Queue", "name: no-broker", "brokerRef"),
        ("Queue", "brokerRef: {name: shop}, durable: 7", "durable"),
        ("Queue", "brokerRef: {name: shop}, deletionPolicy: Maybe", "deletionPolicy"),
        ("Exchange", "brokerRef: {name: shop}, type: x-odd", "type"),
        ("Binding", "brokerRef: {name: shop}, destination: q", "source"),
        ("Binding", "brokerRef: {name: shop}, source: x, destination: q, destinationType: topic", "destinationType"),
    ] {
        let Err(error) = world.apply(&object(kind, spec)) else { anyhow::bail!("{kind} {{{spec}}} was accepted") };
        ensure!(
            format!("{error:#}").contains(words),
            "{kind} {{{spec}}}: the refusal does not name {words}: {error:#}"
        );
    }
    for name in ["1shop", "my.shop", "shop-0123456789-0123456789-0123456789-0123456789"] {
        let Err(error) = world.apply(&object("Broker", "").replace("wrong", name)) else {
            anyhow::bail!("a Broker {name} was accepted")
        };
        ensure!(format!("{error:#}").contains("a Broker's name"), "{name}: {error:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_of_null_is_the_default() -> Result<()> {
    let world = World::new().await?;
    let null = json!({
        "apiVersion": "leveret.dev/v1alpha1", "kind": "Broker", "metadata": {"name": "wrong"},
        "spec": {"paused": true, "storage": {"size": null}, "resources": {"limits": {"cpu": 2}}},
    });
    let folder = leveret_e2e::process::Folder::new()?;
    let file = folder.write("broker.json", &null.to_string())?;
    world.kubectl(&["create", "--filename", file.to_str().unwrap_or_default()])?;
    let broker = world.api::<Broker>().get("wrong").await?;
    ensure!(broker.spec.storage.size.0 == "1Gi" && broker.spec.resources.limits["cpu"].0 == "2", "{:?}", broker.spec);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_immutable_fields_are_refused_with_what_to_do_instead() -> Result<()> {
    let shop = Shop::open().await?;
    for (kind, name, patch) in [
        ("queue.leveret.dev", "billing", "{\"spec\":{\"durable\":false}}"),
        ("queue.leveret.dev", "billing", "{\"spec\":{\"vhost\":\"other\"}}"),
        ("queue.leveret.dev", "billing", "{\"spec\":{\"name\":\"other\"}}"),
        ("queue.leveret.dev", "billing", "{\"spec\":{\"arguments\":{\"x\":1}}}"),
        ("queue.leveret.dev", "billing", "{\"spec\":{\"brokerRef\":{\"name\":\"other\"}}}"),
        ("exchange.leveret.dev", "orders", "{\"spec\":{\"type\":\"fanout\"}}"),
        ("binding.leveret.dev", "orders-to-billing", "{\"spec\":{\"routingKey\":\"other\"}}"),
    ] {
        let Err(error) = shop.world.kubectl(&["patch", kind, name, "--type=merge", "--patch", patch]) else {
            anyhow::bail!("{kind} {name} {patch} was accepted")
        };
        let text = format!("{error:#}");
        ensure!(text.contains("cannot be changed") && text.contains("delete"), "{kind} {name} {patch}: {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_broker_and_conflicts_are_reported_in_conditions() -> Result<()> {
    let shop = Shop::open().await?;
    let queues = shop.world.api::<Queue>();
    shop.world.apply(&object("Queue", "brokerRef: {name: shop}, arguments: {x-message-ttl: 60000}"))?;
    let message = is_not_ready(&queues, "wrong", "Refused").await?;
    ensure!(message.contains("x-message-ttl"), "{message}");

    shop.world.apply(&object("Binding", "brokerRef: {name: shop}, source: orders, destination: later"))?;
    let message = is_not_ready(&shop.world.api::<Binding>(), "wrong", "Missing").await?;
    ensure!(message.contains("later"), "{message}");
    shop.world.apply(
        "apiVersion: leveret.dev/v1alpha1\nkind: Queue\nmetadata: {name: later}\nspec: {brokerRef: {name: shop}}\n",
    )?;
    is_ready(&shop.world.api::<Binding>(), "wrong").await?;

    shop.world.apply("apiVersion: leveret.dev/v1alpha1\nkind: Queue\nmetadata: {name: billing-again}\nspec: {brokerRef: {name: shop}, name: billing}\n")?;
    let message = is_not_ready(&queues, "billing-again", "Conflict").await?;
    ensure!(message.contains("billing"), "{message}");
    is_ready(&queues, "billing").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_has_to_allow_resources_of_another_namespace() -> Result<()> {
    let (shop, other) = (Shop::open().await?, World::new().await?);
    let broker = format!("brokerRef: {{name: shop, namespace: {}}}", shop.world.namespace);
    other.apply(&object("Queue", &broker))?;
    let queues = other.api::<Queue>();
    let message = is_not_ready(&queues, "wrong", "NotAllowed").await?;
    ensure!(message.contains("allowedNamespaces"), "the condition does not say what to do: {message}");
    let allow = json!({"spec": {"topology": {"allowedNamespaces": [other.namespace]}}});
    shop.world.api::<Broker>().patch("shop", &PatchParams::default(), &Patch::Merge(allow)).await?;
    is_ready(&queues, "wrong").await?;
    shop.forward()?.queue_status("wrong", 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_refused_config_key_is_degraded_until_it_is_fixed() -> Result<()> {
    let world = World::new().await?;
    let brokers = world.api::<Broker>();
    world.apply(&object("Broker", "config: {amqp: \"[::]:1\"}"))?;
    let degraded = |broker: &Broker| {
        let conditions = broker.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|condition| {
            condition.type_ == "Degraded" && condition.status == "True" && condition.message.contains("amqp")
        })
    };
    crate::world::wait(&brokers, "wrong", "degraded because of amqp", degraded).await?;
    let fix = json!({"spec": {"config": null, "storage": {"size": "320Mi"}}});
    brokers.patch("wrong", &PatchParams::default(), &Patch::Merge(fix)).await?;
    is_ready(&brokers, "wrong").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_deeply_nested_object_does_not_stop_the_operator() -> Result<()> {
    let shop = Shop::open().await?;
    let deep = format!("{}1{}", "{a: ".repeat(130), "}".repeat(130));
    shop.world.apply(&object("Queue", &format!("brokerRef: {{name: shop}}, arguments: {deep}")))?;
    // The next operator lists all queues, including this one.
    kill_operator(&shop.world).await?;
    shop.world.apply(
        "apiVersion: leveret.dev/v1alpha1\nkind: Queue\nmetadata: {name: later}\nspec: {brokerRef: {name: shop}}\n",
    )?;
    is_ready(&shop.world.api::<Queue>(), "later").await?;
    leveret_e2e::wait::until_ok(PATIENCE, "the Queue's condition".to_owned(), || {
        let told =
            shop.world.kubectl(&["get", "queue.leveret.dev", "wrong", "--output", "jsonpath={.status.conditions}"])?;
        ensure!(told.contains("Unreadable"), "{told}");
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_an_argument_of_a_binding_is_refused() -> Result<()> {
    let shop = Shop::open().await?;
    let bindings = shop.world.api::<Binding>();
    let with = |name: &str| {
        let spec =
            format!("brokerRef: {{name: shop}}, source: orders, destination: billing, arguments: {{{name}: red}}");
        object("Binding", &spec)
    };
    shop.world.apply(&with("color"))?;
    is_ready(&bindings, "wrong").await?;
    // Either the API server or the operator refuses the change. No second binding must be declared.
    if let Err(refused) = shop.world.apply(&with("colour")) {
        ensure!(format!("{refused:#}").contains("arguments cannot be changed"), "{refused:#}");
        return Ok(());
    }
    let message = is_not_ready(&bindings, "wrong", "ChangeRefused").await?;
    ensure!(message.contains("color"), "{message}");
    Ok(())
}
