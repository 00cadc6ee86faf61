//! What a program finds wrong when it starts: it says so in one sentence, and either ends or waits until that is cured.

use std::process::{Command, Output};

use lapin::{options::QueueDeclareOptions, types::FieldTable};
use wxpay_shared::queue::topology;

use crate::harness::{
    notice::Notice,
    pair::{DEADLINE, Pair, binary},
    rabbitmq, wait_until,
};

/// Both programs wait, and say why, until this is in their logs.
async fn both_say(pair: &Pair, words: &str) {
    for program in ["wxpay-ingress", "wxpay-worker"] {
        let says = || pair.log(program).lines().any(|line| line.contains("cannot connect") && line.contains(words));
        wait_until(&format!("{program} says: {words}"), DEADLINE, async || says()).await;
        assert!(!pair.log(program).contains("hush"), "the password stays secret");
    }
    let (_, reply) = pair.post("shop", Notice::new("START", 1_000).xml("n")).await;
    assert!(reply.contains("FAIL"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whom_the_broker_refuses_is_let_in_when_that_is_cured() {
    let (node, host) = rabbitmq::fresh_host().await;
    let user = format!("user-{host}");
    node.ctl(&["add_user", &user, "another"]);
    let mut pair = Pair::prepare(&node.url(&host).replace("guest:guest", &format!("{user}:hush")));
    pair.start_ingress();
    pair.start_worker();
    both_say(&pair, "ACCESS_REFUSED - Login was refused").await;
    node.ctl(&["change_password", &user, "hush"]);
    both_say(&pair, &format!("access to vhost '{host}' refused")).await;
    node.ctl(&["set_permissions", "-p", &host, &user, "nothing", ".*", ".*"]);
    both_say(&pair, "ACCESS_REFUSED - access to exchange 'wxpay'").await;
    node.ctl(&["set_permissions", "-p", &host, &user, ".*", ".*", ".*"]);
    pair.ready().await;
    assert!(pair.post("shop", Notice::new("START", 1_000).xml("n")).await.1.contains("SUCCESS"));
}

fn run_to_the_end(program: &str, arguments: &[&str], pair: &Pair) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(binary(program)).args(arguments).arg("--config").arg(pair.config_file()).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_ends_both_programs_with_its_name() {
    let (node, host) = rabbitmq::fresh_host().await;
    let channel = node.stranger(&host).await;
    let declared = channel.queue_declare(topology::DEAD.into(), QueueDeclareOptions::durable(), FieldTable::default());
    declared.await.unwrap();
    let pair = Pair::prepare(&node.url(&host));
    for program in ["wxpay-ingress", "wxpay-worker"] {
        let (code, said) = run_to_the_end(program, &[], &pair);
        assert_eq!(code, Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("wxpay.notify.dead exists with other arguments: PRECONDITION_FAILED"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_process() {
    let mut pair = Pair::prepare("embedded");
    pair.start_serve();
    pair.worker_ready().await;
    let ports = ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let arguments = [&["serve"][..], &ports].concat();
    let (code, said) = run_to_the_end("wxpayctl", &arguments, &pair);
    assert!(code != Some(0) && said.contains("is in use by another process; only one at a time may use it"), "{said}");
}
