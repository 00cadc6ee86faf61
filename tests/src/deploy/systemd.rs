//! ops/systemd.

use wxpay_shared::{
    http::CONNECTIONS_MAX,
    runtime::{EXIT_CONFIG, SHUTDOWN_GRACE},
};

use super::{Environment, assert_runs, config, read};

struct Unit(Vec<(String, String)>);

impl Unit {
    fn read(program: &str) -> Self {
        let text = read(&format!("ops/systemd/wxpay-{program}.service"));
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
        let setting = |line: &str| {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{program}: {line}"));
            (name.to_owned(), value.to_owned())
        };
        Self(lines.map(setting).collect())
    }

    fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    fn one(&self, name: &str) -> &str {
        let found = self.all(name);
        assert_eq!(found.len(), 1, "{name}");
        found[0]
    }

    fn number(&self, name: &str) -> u64 {
        self.one(name).parse().unwrap_or_else(|_| panic!("{name} is a number"))
    }
}

#[test]
fn each_unit_starts_its_program_as_an_ordinary_user() {
    for program in ["ingress", "worker"] {
        let unit = Unit::read(program);
        let command: Vec<_> = unit.one("ExecStart").strip_prefix("/usr/local/bin/").unwrap().split(' ').collect();
        assert_eq!(command, [format!("wxpay-{program}").as_str(), "--config", "/etc/wxpay/wxpay.toml"]);
        assert_runs(&command[..1]);
        assert_eq!((unit.one("User"), unit.one("CapabilityBoundingSet")), ("wxpay", ""));
        assert!(unit.one("ExecReload").contains("-HUP"), "a reload reads the keys again");
        for hardening in ["NoNewPrivileges", "PrivateDevices", "MemoryDenyWriteExecute", "RestrictNamespaces"] {
            assert_eq!(unit.one(hardening), "yes", "{program}: {hardening}");
        }
        assert_eq!(unit.one("ProtectSystem"), "strict");
    }
}

#[test]
fn the_limits_are_those_of_the_programs() {
    for program in ["ingress", "worker"] {
        let unit = Unit::read(program);
        assert!(unit.number("TimeoutStopSec") > SHUTDOWN_GRACE.as_secs());
        assert!(unit.number("LimitNOFILE") > u64::try_from(CONNECTIONS_MAX).unwrap());
        assert_eq!(unit.number("RestartPreventExitStatus"), u64::from(EXIT_CONFIG));
    }
}

#[test]
fn the_worker_keeps_its_data_where_systemd_lets_it_write() {
    let unit = Unit::read("worker");
    let environment = unit.all("Environment").into_iter().filter_map(|pair| pair.split_once('='));
    let environment: Environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let directory = format!("/var/lib/{}", unit.one("StateDirectory"));
    assert_eq!(config(&environment).data_dir().display().to_string(), directory);
    assert!(Unit::read("ingress").all("StateDirectory").is_empty(), "ingress writes nothing");
}
