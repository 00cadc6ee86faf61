//! ops/kubernetes.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;
use wxpay_shared::{config::Config, merchant::Merchants, metric::list, runtime::SHUTDOWN_GRACE, store::open::Home};

use super::{assert_public, assert_runs, read, secrets};

const MOUNT: &str = "/run/secrets/wxpay";

fn documents(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(&format!("ops/kubernetes/{file}.yaml"))).unwrap()
}

/// The first document of a kind.
fn document(file: &str, kind: &str) -> Value {
    documents(file).into_iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("{file}: no {kind}"))
}

fn pod(program: &str) -> Value {
    document(program, "Deployment")["spec"]["template"]["spec"].clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a text, got {value}"))
}

/// The keys of the secret that a program is given.
fn given(program: &str) -> Vec<String> {
    let pod = pod(program);
    let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "secrets").unwrap();
    let items = volume["secret"]["items"].as_array().unwrap();
    items.iter().map(|item| text(&item["path"]).to_owned()).collect()
}

/// The configuration as a program finds it, with the secrets that it is given and no others.
fn configured(program: &str) -> (TempDir, Config) {
    let (made, files) = secrets("postgres");
    let directory = TempDir::with_prefix("wxpay-kubernetes-").unwrap();
    for name in given(program) {
        fs::copy(files.join(&name), directory.path().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    drop(made);
    let config = document("config", "ConfigMap");
    let config = text(&config["data"]["wxpay.toml"]).replace(MOUNT, &directory.path().display().to_string());
    let file = directory.path().join("wxpay.toml");
    fs::write(&file, config).unwrap();
    let config = Config::load(Some(&file), []).unwrap();
    (directory, config)
}

#[test]
fn the_programs_find_the_secrets_that_they_need_and_ingress_no_others() {
    for program in ["ingress", "worker"] {
        let (_directory, config) = configured(program);
        config.broker_url().unwrap();
        config.shared_seal_keys().unwrap();
        assert!(Merchants::open(&config).unwrap().get("shop").is_some());
        let worker = program == "worker";
        assert_eq!(config.store_url().is_ok(), worker);
        assert_eq!(config.admin_token().is_ok(), worker);
        if worker {
            assert_eq!(Home::of(&config.store_url().unwrap()).unwrap(), Home::Postgres);
        }
    }
}

#[test]
fn what_runs_is_ours_and_has_the_rights_of_nobody() {
    for program in ["ingress", "worker"] {
        let pod = pod(program);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > SHUTDOWN_GRACE.as_secs() + 5);
        let containers = pod["containers"].as_array().unwrap();
        let first = pod.get("initContainers").and_then(Value::as_array).into_iter().flatten();
        for container in first.chain(containers) {
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
            let command =
                container.get("command").map_or_else(|| format!("wxpay-{program}"), |name| text(&name[0]).into());
            let arguments = container["args"].as_array().unwrap().iter().map(text);
            assert_runs(&std::iter::once(command.as_str()).chain(arguments).collect::<Vec<_>>());
            let mounts = container["volumeMounts"].as_array().unwrap();
            let mounted = |path: &str| mounts.iter().any(|mount| mount["mountPath"] == path);
            assert!(mounted(MOUNT) && mounted("/etc/wxpay"));
        }
    }
    let (_directory, config) = configured("worker");
    let worker = pod("worker");
    let mounts = worker["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| Path::new(text(&mount["mountPath"])) == config.data_dir()));
}

#[test]
fn ports_and_probes_are_those_of_the_programs() {
    let (_directory, config) = configured("worker");
    let default = Config::default();
    assert_public("ingress.listen", config.ingress.listen, default.ingress.listen);
    assert_public("ingress.ops_listen", config.ingress.ops_listen, default.ingress.ops_listen);
    assert_public("worker.admin_listen", config.worker.admin_listen, default.worker.admin_listen);
    for (program, port, number) in [
        ("ingress", "notify", config.ingress.listen.port()),
        ("ingress", "ops", config.ingress.ops_listen.port()),
        ("worker", "admin", config.worker.admin_listen.port()),
    ] {
        let container = pod(program)["containers"][0].clone();
        let ports = container["ports"].as_array().unwrap();
        assert!(ports.contains(&json!({ "name": port, "containerPort": number })), "{program}: {port}");
        if port != "notify" {
            for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
                assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": port }), "{program}");
            }
            let annotations = &document(program, "Deployment")["spec"]["template"]["metadata"]["annotations"];
            assert_eq!(annotations["prometheus.io/port"], number.to_string());
        }
    }
}

#[test]
fn services_and_autoscalers_name_what_is_there() {
    for program in ["ingress", "worker"] {
        let name = format!("wxpay-{program}");
        let deployment = document(program, "Deployment");
        assert_eq!(deployment["metadata"]["name"], name);
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
        assert_eq!(&document(program, "Service")["spec"]["selector"], labels);
        assert_eq!(document(program, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"], name);
    }
    let metric = document("worker", "HorizontalPodAutoscaler")["spec"]["metrics"][0]["external"]["metric"].clone();
    let listed = list::ALL.into_iter().find(|listed| listed.name == metric["name"]).unwrap();
    for label in metric["selector"]["matchLabels"].as_object().unwrap().keys() {
        assert!(listed.labels.contains(&label.as_str()), "{label}");
    }
    let adapter = &documents("prometheus-adapter/values")[0]["rules"]["external"][0];
    assert!(text(&adapter["seriesQuery"]).starts_with(listed.name));
    assert_eq!(adapter["name"]["as"], metric["name"]);
}
