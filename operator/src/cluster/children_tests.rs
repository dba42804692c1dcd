//! Whose the children are, and what the problem says when one of them cannot be written.
use super::*;
use crate::cluster::build::tests::{broker, children_of, image, secrets};
use crate::cluster::gather::gather;
use crate::cluster::login::{Login, Logins};
use crate::kubernetes::fake::Fake;
use serde_json::{Value, json};

const CORE: &str = "/api/v1/namespaces/trade";
const SET: &str = "/apis/apps/v1/namespaces/trade/statefulsets/shop";

fn children(broker: &Broker) -> Children {
    let current = Login { username: "u".to_owned(), password: "p".to_owned() };
    children_of(broker, image("image:1"), &secrets(Logins { current, previous: None, version: "v1".to_owned() }))
}

async fn write_all(fake: &Fake, broker: &Broker) -> Option<Problem> {
    let client = fake.client();
    let gathered = gather(&client, broker).await.unwrap();
    if let Some(problem) = names_taken(&gathered.foreign) {
        return Some(problem);
    }
    match inspect_all(&client, broker, children(broker)).await.unwrap() {
        Ok(inspected) => write(&client, inspected, true).await.unwrap().problem,
        Err(problem) => Some(problem),
    }
}

#[tokio::test]
async fn all_children_are_made_and_then_left_alone() {
    let fake = Fake::default();
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    assert_eq!(fake.writes().len(), 10);
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    assert_eq!(fake.writes(), [""; 0], "nothing is written when nothing changed");
}

#[tokio::test]
async fn nothing_is_taken_from_others_and_nothing_half_made() {
    let kinds = [
        ("services/shop", "Service"),
        ("services/shop-nodes", "Service"),
        ("services/shop-management", "Service"),
        ("configmaps/shop-config", "ConfigMap"),
        ("serviceaccounts/shop", "ServiceAccount"),
        ("secrets/shop-default-user", "Secret"),
        ("secrets/shop-login", "Secret"),
        ("secrets/shop-cluster", "Secret"),
        ("persistentvolumeclaims/data-shop-0", "PersistentVolumeClaim"),
        ("../../../apis/policy/v1/namespaces/trade/poddisruptionbudgets/shop", "PodDisruptionBudget"),
        ("../../../apis/apps/v1/namespaces/trade/statefulsets/shop", "StatefulSet"),
    ];
    for (path, kind) in kinds {
        let fake = Fake::default();
        let path = path.strip_prefix("../../..").map_or_else(|| format!("{CORE}/{path}"), str::to_owned);
        let name = path.rsplit('/').next().unwrap();
        let theirs = json!({"kind": kind, "metadata": {"name": name, "namespace": "trade"}, "spec": {"theirs": 1}});
        fake.put(&path, theirs);
        let before = fake.get(&path);
        let problem = write_all(&fake, &broker(json!({}))).await.unwrap();
        assert_eq!(problem.reason, "NameTaken", "{path}");
        assert!(problem.message.contains(&format!("{kind} trade/{name}")), "{}", problem.message);
        assert_eq!(fake.writes(), [""; 0], "{path}");
        assert_eq!(fake.get(&path), before);
    }
}

#[tokio::test]
async fn of_two_brokers_whose_children_have_one_name_the_later_is_refused() {
    let fake = Fake::default();
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    fake.writes();
    let mut other = broker(json!({}));
    (other.metadata.name, other.metadata.uid) = (Some("shop-nodes".to_owned()), Some("other".to_owned()));
    let problem = write_all(&fake, &other).await.unwrap();
    assert!(
        problem.message.contains("Service trade/shop-nodes (it is controlled by Broker shop)"),
        "{}",
        problem.message
    );
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test]
async fn a_volume_that_a_broker_of_this_name_has_left_is_taken_again() {
    let fake = Fake::default();
    let labels = json!({"app.kubernetes.io/name": "leveret", "app.kubernetes.io/instance": "shop"});
    let claim = json!({"metadata": {"name": "data-shop-0", "labels": labels}});
    fake.put(&format!("{CORE}/persistentvolumeclaims/data-shop-0"), claim);
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
}

#[tokio::test]
async fn every_refusal_is_reported_in_the_words_of_the_api_server() {
    for (call, code, reason, words) in [
        (format!("POST {CORE}/secrets/shop-login"), 403, "Forbidden", "exceeded quota: secrets"),
        (format!("POST {CORE}/services/shop"), 422, "Invalid", "metadata.annotations: Invalid value: \"bad key!\""),
        (format!("POST {CORE}/configmaps/shop-config"), 400, "BadRequest", "admission webhook denied the request"),
        (format!("POST {SET}"), 422, "Invalid", "spec.template.labels: Invalid value"),
        (format!("POST {CORE}/serviceaccounts/shop"), 500, "InternalError", "failed calling webhook"),
    ] {
        let fake = Fake::default();
        fake.refuse(&call, code, reason, words);
        let problem = write_all(&fake, &broker(json!({}))).await.unwrap();
        assert_eq!(problem.reason, reason, "{call}");
        assert!(problem.message.contains(words) && !problem.message.contains("spec.storage"), "{}", problem.message);
        assert!(fake.get(SET).is_none(), "no pod is made of a part: {call}");
        assert!(fake.writes().len() >= 7, "the others are made");
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_made_says_what_to_do() {
    let fake = Fake::default();
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    let problem = write_all(&fake, &broker(json!({"storage": {"className": "fast"}}))).await.unwrap();
    assert_eq!(problem.reason, "ChangeRefused");
    assert!(problem.message.contains("className") && problem.message.contains("'fast'"), "{}", problem.message);
    let words = "updates to statefulset spec for fields other than 'replicas' are forbidden";
    fake.refuse(&format!("PUT {SET}"), 422, "Invalid", words);
    let changed = broker(json!({"resources": {"limits": {"memory": "2Gi"}}}));
    let problem = write_all(&fake, &changed).await.unwrap();
    assert_eq!(problem.reason, "ChangeRefused");
    assert!(problem.message.contains(words) && problem.message.contains("spec.storage"), "{}", problem.message);
}

#[tokio::test]
async fn a_volume_that_cannot_be_changed_keeps_nothing_else_from_being_written() {
    for storage in [json!({"className": "fast"}), json!({"size": "512Mi"}), json!({"size": "2Gi"})] {
        let fake = Fake::default();
        assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
        let made = fake.get(SET).unwrap()["spec"]["volumeClaimTemplates"].clone();
        let mut edited = fake.get(SET).unwrap();
        edited["spec"]["replicas"] = json!(3);
        fake.put(SET, edited);
        let changed = broker(json!({"storage": storage, "resources": {"limits": {"memory": "2Gi"}}}));
        write_all(&fake, &changed).await;
        let spec = &fake.get(SET).unwrap()["spec"];
        assert_eq!(spec["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"], "2Gi", "{storage}");
        assert_eq!((&spec["replicas"], &spec["volumeClaimTemplates"]), (&json!(1), &made), "{storage}");
    }
}

#[tokio::test]
async fn applications_get_a_login_only_when_the_pods_are_to_run_with_it() {
    let fake = Fake::default();
    let told = format!("PUT {CORE}/secrets/shop-default-user");
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    let changed = |version: &str| {
        let current = Login { username: "u".to_owned(), password: "new".to_owned() };
        let logins = Logins { current, previous: None, version: version.to_owned() };
        children_of(&broker(json!({})), image("image:1"), &secrets(logins))
    };
    let write_login = async |version: &str| {
        let changed = changed(version);
        let inspected = inspect_all(&fake.client(), &broker(json!({})), changed).await.unwrap().ok().unwrap();
        fake.writes();
        let problem = write(&fake.client(), inspected, true).await.unwrap().problem;
        (problem.map(|problem| problem.reason), fake.writes().contains(&told))
    };
    fake.refuse(&format!("PUT {SET}"), 403, "Forbidden", "denied by a policy");
    assert_eq!(write_login("v2").await, (Some("Forbidden".to_owned()), false), "the pods run with the old login");
    fake.allow(&format!("PUT {SET}"));
    assert_eq!(write_login("v2").await, (None, true));
}

#[tokio::test]
async fn edits_of_the_stateful_set_are_put_back() {
    let fake = Fake::default();
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    let made = fake.get(SET).unwrap();
    let mut edited = made.clone();
    let pod = &mut edited["spec"]["template"]["spec"];
    pod["containers"][0]["image"] = json!("x/evil:1");
    pod["containers"][0]["env"].as_array_mut().unwrap().push(json!({"name": "MORE", "value": "1"}));
    pod["initContainers"] = json!([{"name": "evil"}]);
    edited["spec"]["replicas"] = json!(3);
    fake.put(SET, edited);
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    let without_version = |mut object: Value| {
        object["metadata"]["resourceVersion"] = Value::Null;
        object
    };
    assert_eq!(without_version(fake.get(SET).unwrap()), without_version(made));
}

#[tokio::test]
async fn pods_are_not_restarted_for_a_login_that_could_not_be_written() {
    let fake = Fake::default();
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    let before = fake.get(SET);
    let edit = |path: &str, field: &str| {
        let mut object = fake.get(path).unwrap();
        object["data"][field] = json!("eA==");
        fake.put(path, object);
    };
    let login = format!("{CORE}/secrets/shop-login");
    edit(&login, "password");
    fake.refuse(&format!("PUT {login}"), 422, "Invalid", "field is immutable");
    let changed = broker(json!({"resources": {"limits": {"memory": "2Gi"}}}));
    let problem = write_all(&fake, &changed).await.unwrap();
    assert!(problem.message.contains("Secret trade/shop-login") && problem.message.contains("immutable"));
    assert_eq!(fake.get(SET), before);
    // A Service that is refused is no reason to leave the pods as they are.
    let fake = Fake::default();
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    let service = format!("{CORE}/services/shop");
    let mut edited = fake.get(&service).unwrap();
    edited["spec"]["ports"] = json!([]);
    fake.put(&service, edited);
    fake.refuse(&format!("PUT {service}"), 403, "Forbidden", "denied");
    assert_eq!(write_all(&fake, &changed).await.unwrap().reason, "Forbidden");
    assert_eq!(
        fake.get(SET).unwrap()["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"],
        "2Gi"
    );
}

#[tokio::test]
async fn a_stateful_set_of_an_earlier_operator_does_not_replace_pods_by_itself_any_more() {
    let fake = Fake::default();
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    let mut earlier = fake.get(SET).unwrap();
    earlier["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
    fake.put(SET, earlier);
    assert_eq!(write_all(&fake, &broker(json!({}))).await, None);
    assert_eq!(fake.get(SET).unwrap()["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
}
