//! docker-compose.yml.

use std::collections::BTreeSet;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use wxpay_shared::{config::Config, merchant::Merchants, runtime::SHUTDOWN_GRACE, store::open::Home};

use super::{Environment, assert_public, assert_runs, config, read, secrets, with_secrets_in};
use crate::harness::{
    pair::{DEADLINE, Pair, binary},
    rabbitmq, wait_until,
};

const MOUNT: &str = "/run/secrets/";
const PROGRAMS: [&str; 2] = ["ingress", "worker"];

struct Compose(Value);

impl Compose {
    fn read() -> Self {
        Self(serde_saphyr::from_str(&read("docker-compose.yml")).unwrap())
    }

    fn services(&self) -> &serde_json::Map<String, Value> {
        self.0["services"].as_object().unwrap()
    }

    fn service(&self, name: &str) -> &Value {
        &self.services()[name]
    }

    /// A service's environment, with what `.env` says in its place.
    fn environment(&self, name: &str) -> Environment {
        let of_shell = shell();
        let set = |(name, value): (&String, &Value)| {
            let mut value = value.as_str().unwrap().to_owned();
            for (variable, content) in &of_shell {
                value = value.replace(&format!("${{{variable}}}"), content);
            }
            assert!(!value.contains("${"), "{name}: {value} is not set in .env");
            (name.clone(), value)
        };
        self.service(name)["environment"].as_object().unwrap().iter().map(set).collect()
    }

    fn secrets(&self, name: &str) -> Vec<String> {
        let of_short_form = |secret: &Value| secret.as_str().map(str::to_owned);
        self.service(name)["secrets"].as_array().unwrap().iter().filter_map(of_short_form).collect()
    }

    /// The configuration of a service, its secrets made by the script for this store.
    fn config(&self, name: &str, store: &str) -> (tempfile::TempDir, Config) {
        let (directory, secrets) = secrets(store);
        let environment = with_secrets_in(&secrets, MOUNT, &self.secrets(name), &self.environment(name));
        let config = config(&environment);
        (directory, config)
    }
}

/// What `.env` says.
fn shell() -> Environment {
    let env = read(".env");
    let set = env.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn the_programs_understand_their_environment_and_find_their_secrets() {
    let compose = Compose::read();
    for (store, home) in [("postgres", Home::Postgres), ("mysql", Home::Mysql)] {
        for program in PROGRAMS {
            let (_secrets, config) = compose.config(program, store);
            assert!(config.broker_url().unwrap().expose_secret().starts_with("amqp://wxpay:"));
            config.shared_seal_keys().unwrap();
            assert_eq!(Merchants::open(&config).unwrap().get("shop").unwrap().v2_keys.len(), 1);
        }
        let (_secrets, worker) = compose.config("worker", store);
        let (_secrets, migrate) = compose.config("migrate", store);
        for config in [worker, migrate] {
            assert_eq!(Home::of(&config.store_url().unwrap()).unwrap(), home);
        }
    }
}

#[test]
fn every_secret_is_mounted_once_and_from_the_directory_that_git_does_not_see() {
    let compose = Compose::read();
    for (name, service) in compose.services() {
        let Some(secrets) = service.get("secrets") else { continue };
        for secret in secrets.as_array().unwrap() {
            let secret = secret.as_str().or_else(|| secret["source"].as_str()).unwrap();
            let file = compose.0["secrets"][secret]["file"].as_str().unwrap_or_else(|| panic!("{name}: {secret}"));
            let file = file.strip_prefix("./secrets/").unwrap();
            let (_directory, made) = super::secrets("postgres");
            assert!(made.join(file).is_file(), "the script does not make {file}");
        }
        let environment = service.get("environment").map(|_| compose.environment(name)).unwrap_or_default();
        let named: BTreeSet<_> = environment.values().filter_map(|value| value.strip_prefix(MOUNT)).collect();
        let mounted = compose.secrets(name);
        assert_eq!(named, mounted.iter().map(String::as_str).collect(), "{name}: what it reads, and what it is given");
    }
    assert!(read(".gitignore").lines().any(|line| line == "/secrets/"));
    assert!(read(".dockerignore").lines().any(|line| line == "secrets"));
}

#[test]
fn only_the_worker_knows_the_store() {
    let compose = Compose::read();
    assert!(!compose.secrets("ingress").iter().any(|secret| secret == "store-url" || secret == "database-password"));
    assert!(!compose.environment("ingress").keys().any(|name| name.contains("STORE")));
}

#[test]
fn the_worker_can_be_scaled_as_it_stands() {
    let compose = Compose::read();
    let worker = compose.service("worker");
    for forbidden in ["container_name", "ports", "hostname"] {
        assert!(worker.get(forbidden).is_none(), "two workers cannot share one {forbidden}");
    }
    let (_secrets, config) = compose.config("worker", "postgres");
    // A volume without a name is a new one for each container.
    let data = config.data_dir().display().to_string();
    assert_eq!(texts(&worker["volumes"]), [data]);
    assert_eq!(worker["depends_on"]["migrate"]["condition"], "service_completed_successfully");
    assert_runs(&texts(&compose.service("migrate")["entrypoint"]));
}

#[test]
fn each_profile_has_its_store_and_the_default_is_one_of_them() {
    let compose = Compose::read();
    let of_profile = |profile: &str| {
        let is_in = |service: &Value| service.get("profiles").is_some_and(|profiles| texts(profiles) == [profile]);
        compose
            .services()
            .iter()
            .filter(|(_, service)| is_in(service))
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(of_profile("postgres"), ["postgres"]);
    assert_eq!(of_profile("mysql"), ["mariadb"]);
    assert_eq!(shell()["COMPOSE_PROFILES"], "postgres");
    for store in ["postgres", "mariadb"] {
        for waiting in ["migrate", "worker"] {
            let waits = &compose.service(waiting)["depends_on"][store];
            assert_eq!(waits["condition"], "service_healthy", "{waiting}");
            assert_eq!(waits["required"], false, "{waiting} must start in the other profile too");
        }
    }
}

#[test]
fn whatever_goes_on_running_says_whether_it_is_healthy() {
    let compose = Compose::read();
    for (name, service) in compose.services().iter().filter(|(name, _)| *name != "migrate") {
        let command = texts(&service["healthcheck"]["test"]);
        assert_eq!(command[0], "CMD", "{name}: a shell is not everywhere");
        if PROGRAMS.contains(&name.as_str()) {
            assert_eq!(command[1..], ["wxpayctl", "healthcheck", name.as_str()]);
            assert_runs(&command[1..]);
        }
        for needed in service.get("depends_on").and_then(Value::as_object).into_iter().flat_map(|on| on.keys()) {
            assert!(compose.services().contains_key(needed), "{name} waits for {needed}");
        }
    }
}

#[test]
fn the_ports_are_those_of_the_programs() {
    let compose = Compose::read();
    let default = Config::default();
    let (_secrets, ingress) = compose.config("ingress", "postgres");
    assert_public("ingress.listen", ingress.ingress.listen, default.ingress.listen);
    assert_eq!(texts(&compose.service("ingress")["ports"]), ["8080:8080"]);
    assert_eq!(default.ingress.listen.port(), 8080);
    assert_public("ingress.ops_listen", ingress.ingress.ops_listen, default.ingress.ops_listen);
    let (_secrets, worker) = compose.config("worker", "postgres");
    assert_public("worker.admin_listen", worker.worker.admin_listen, default.worker.admin_listen);
    assert!(worker.admin_token().unwrap().is_some());
    assert_eq!(texts(&compose.service("worker")["expose"]), [default.worker.admin_listen.port().to_string()]);
}

#[test]
fn the_programs_get_the_time_that_they_need_to_end() {
    let compose = Compose::read();
    for program in PROGRAMS {
        let grace = compose.service(program)["stop_grace_period"].as_str().unwrap();
        let seconds: u64 = grace.strip_suffix('s').unwrap().parse().unwrap();
        assert!(seconds > SHUTDOWN_GRACE.as_secs(), "{program}: {grace}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_follows_the_program() {
    let mut pair = Pair::start(&rabbitmq::fresh_url().await).await;
    let file = pair.config_file();
    let check = |program: &str| {
        let command = ["healthcheck", program, "--config", file.to_str().unwrap()];
        let output = std::process::Command::new(binary("wxpayctl")).args(command).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    for program in PROGRAMS {
        assert_eq!(check(program), (0, "ready\n".to_owned()));
    }
    pair.kill_worker();
    wait_until("the worker is missed", DEADLINE, async || check("worker").0 == 1).await;
    let (code, said) = check("worker");
    assert!(
        code == 1 && said.starts_with("nothing answers at http://127.0.0.1:") && said.lines().count() == 1,
        "{said}"
    );
    std::fs::write(&file, "typo = 1").unwrap();
    let (code, said) = check("ingress");
    assert!(code == 1 && said.contains("typo") && said.lines().count() == 1, "{said}");
}
