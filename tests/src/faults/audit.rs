//! The audit must see what it is there for: each way to break a promise is shown to it.

use std::collections::BTreeMap;

use wxpay_shared::reason::Reason;

use crate::harness::{
    audit::{Account, Dead, Entry, Event, Evidence, Order, violations},
    story::{Fate, Story, What, letter_of},
};

const STORIES: u64 = 60;

/// What is left when everything went right: each story told once, in its order.
fn honest() -> (Vec<Story>, Evidence) {
    let stories: Vec<Story> = (0..STORIES).map(|index| Story::new(7, index)).collect();
    let mut evidence = Evidence { between: BTreeMap::from([("wxpay.notify".to_owned(), 0)]), ..Evidence::default() };
    let mut balances: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for story in &stories {
        let mut recorded = 0;
        for letter in &story.letters {
            let tag = letter.number * 10_000;
            evidence.tellings.insert(tag, true);
            let (amount, id) = match &letter.what {
                What::Payment { amount, .. } | What::Refund { amount, .. } => (*amount, format!("n{tag}")),
                What::Failed { .. } => continue,
            };
            let mut die = |reason| evidence.dead.push(Dead { id: id.clone(), reason: Some(reason), tag: Some(tag) });
            let reason = match letter.fate {
                Fate::Dead(reason) => {
                    die(reason);
                    continue;
                }
                Fate::OneOfTwo(reason) if std::mem::replace(&mut recorded, 1) == 1 => {
                    die(reason);
                    if reason == Reason::OverRefund {
                        continue;
                    }
                    Some(reason)
                }
                Fate::Applied | Fate::Ignored | Fate::OneOfTwo(_) => None,
            };
            let event =
                Event { key: letter.key(), order: story.out_trade_no.clone(), amount, notification: id, reason };
            evidence.events.push(event);
        }
        let ends = &story.ends;
        if !story.registered {
            continue;
        }
        evidence.orders.push(Order {
            number: story.out_trade_no.clone(),
            state: ends.state.to_owned(),
            received: ends.received,
            kept: ends.kept,
            points: ends.points,
        });
        if ends.points != 0 {
            let (balance, seq) = balances.entry(story.user.clone()).or_default();
            (*balance, *seq) = (*balance + ends.points, *seq + 1);
            let event = evidence.events.last().expect("points come from an event").key.clone();
            let (user, order) = (story.user.clone(), story.out_trade_no.clone());
            evidence.ledger.push(Entry { user, seq: *seq, order, event, points: ends.points, balance: *balance });
        }
    }
    let account = |(user, (balance, entries))| Account { user, balance, entries };
    evidence.accounts = balances.into_iter().map(account).collect();
    (stories, evidence)
}

#[test]
fn an_honest_state_has_no_violation() {
    let (stories, evidence) = honest();
    assert_eq!(violations(&stories, &evidence, 0), Vec::<String>::new());
    assert!(evidence.dead.len() > 3 && evidence.ledger.len() > 20, "the sample has something of everything");
}

/// Changes an honest state; the audit must say so, in these words.
fn caught(words: &str, tamper: impl FnOnce(&[Story], &mut Evidence)) {
    let (stories, mut evidence) = honest();
    tamper(&stories, &mut evidence);
    let found = violations(&stories, &evidence, 0);
    assert!(found.iter().any(|violation| violation.contains(words)), "{words}: {found:#?}");
}

#[test]
fn a_loss_is_caught() {
    caught("and it is not recorded", |_, evidence| drop(evidence.events.remove(0)));
    caught("got SUCCESS and vanished", |_, evidence| drop(evidence.dead.remove(0)));
    caught("registered, and gone", |_, evidence| drop(evidence.orders.remove(0)));
    caught("messages are still on their way", |_, evidence| {
        evidence.between.insert("wxpay.notify.retry.5s".to_owned(), 1);
    });
    caught("no dead letter answers for it", |_, evidence| {
        let surplus = evidence.events.iter().find(|event| event.reason.is_some()).expect("a surplus payment");
        let id = surplus.notification.clone();
        evidence.dead.retain(|dead| dead.id != id);
    });
}

#[test]
fn something_twice_is_caught() {
    caught("recorded twice", |_, evidence| evidence.events.push(evidence.events[0].clone()));
    caught("moved points twice", |_, evidence| evidence.ledger.push(evidence.ledger[0].clone()));
    caught("its events say", |_, evidence| evidence.orders[0].received += 100);
    caught("ended as", |_, evidence| evidence.orders[0].state = "closed".to_owned());
}

#[test]
fn wrong_books_are_caught() {
    caught("entries sum up to", |_, evidence| evidence.accounts[0].balance += 1);
    caught("has a wrong balance", |_, evidence| evidence.ledger[0].points += 1);
    caught("stands where", |_, evidence| evidence.ledger[0].seq = 99);
    caught("counted", |_, evidence| evidence.accounts[0].entries += 1);
    caught("entries without an account", |_, evidence| drop(evidence.accounts.remove(0)));
    caught("points without an event", |_, evidence| evidence.ledger[0].event = "pay:1:2".to_owned());
}

#[test]
fn a_wrong_dead_letter_is_caught() {
    caught("died of Some(DeliveryLimit)", |_, evidence| evidence.dead[0].reason = Some(Reason::DeliveryLimit));
    caught("died of None", |_, evidence| evidence.dead[0].reason = None);
    caught("died and was never told", |_, evidence| evidence.dead[0].tag = evidence.dead[0].tag.map(|tag| tag + 1));
    caught("dead letters of strangers", |_, evidence| evidence.dead[0].tag = None);
    caught("died of Some(AmountMismatch), expected None", |stories, evidence| {
        let good = evidence.tellings.keys().copied().find(|tag| {
            let letters = stories.iter().flat_map(|story| &story.letters);
            letters.into_iter().any(|letter| letter.number == letter_of(*tag) && letter.fate == Fate::Applied)
        });
        evidence.dead.push(Dead { id: "good".to_owned(), reason: Some(Reason::AmountMismatch), tag: good });
    });
}

#[test]
fn money_that_wechat_did_not_speak_of_is_caught() {
    caught("WeChat never said so", |_, evidence| {
        let forged = Event { key: "pay:1900990001:forged".to_owned(), ..evidence.events[0].clone() };
        evidence.events.push(forged);
    });
    caught("told", |_, evidence| evidence.events[0].amount += 1);
    caught("told", |_, evidence| evidence.events[0].order = "ANOTHER".to_owned());
    caught("recorded as AmountMismatch", |_, evidence| evidence.events[0].reason = Some(Reason::AmountMismatch));
}
