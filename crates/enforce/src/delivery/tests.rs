use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use offpath_types::{EntityKind, MatchValue, Timestamp};

use super::*;
use crate::outbox::testing::failing_store;
use crate::webhook::{self, Headers};
use crate::{Alarm, AlarmKind};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SOON: Duration = Duration::from_secs(20);

/// What a fake target answers, one after the other; the last one for good.
#[derive(Clone, Debug)]
enum Answer {
    Status(u16),
    RetryAfter(u16, &'static str),
    Hang,
}

struct Fake {
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<(String, String, Instant)>>,
    open: AtomicUsize,
    open_most: AtomicUsize,
}

/// A target on loopback, with its thread; it checks every signature.
struct Place {
    url: String,
    fake: Arc<Fake>,
    _until_dropped: tokio::sync::oneshot::Sender<()>,
}

impl Place {
    fn new(answers: &[Answer]) -> Self {
        let fake = Arc::new(Fake {
            answers: Mutex::new(answers.iter().cloned().collect()),
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            open_most: AtomicUsize::new(0),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let app = Router::new().fallback(hook).with_state(fake.clone());
        let (until_dropped, dropped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = axum::serve(listener, app).into_future() => {}
                    _ = dropped => {}
                }
            });
        });
        Self { url, fake, _until_dropped: until_dropped }
    }

    fn ids(&self) -> Vec<String> {
        self.fake.seen.lock().unwrap().iter().map(|(id, _, _)| id.clone()).collect()
    }

    fn wait_for(&self, count: usize) {
        let start = clock::instant();
        while self.fake.seen.lock().unwrap().len() < count {
            assert!(start.elapsed() < SOON, "only {:?} arrived", self.ids());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

async fn hook(State(fake): State<Arc<Fake>>, headers: HeaderMap, body: String) -> Response {
    let text = |name: &str| headers.get(name).map_or("", |v| v.to_str().unwrap_or_default());
    let signed = Headers {
        id: text(webhook::ID_HEADER),
        timestamp: text(webhook::TIMESTAMP_HEADER),
        signature: text(webhook::SIGNATURE_HEADER),
    };
    let secrets = [Secret::parse(SECRET).unwrap()];
    if webhook::verify(&secrets, signed, body.as_bytes(), clock::wall_ms() / 1000, 5).is_err() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let open = fake.open.fetch_add(1, Ordering::SeqCst) + 1;
    fake.open_most.fetch_max(open, Ordering::SeqCst);
    fake.seen.lock().unwrap().push((signed.id.to_owned(), body, clock::instant()));
    let answer = {
        let mut answers = fake.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    };
    if matches!(answer, Some(Answer::Hang)) {
        std::future::pending::<()>().await;
    }
    // Long enough for others to overlap.
    tokio::time::sleep(Duration::from_millis(2)).await;
    fake.open.fetch_sub(1, Ordering::SeqCst);
    match answer {
        Some(Answer::RetryAfter(status, after)) => {
            (StatusCode::from_u16(status).unwrap(), [("retry-after", after)]).into_response()
        }
        Some(Answer::Status(status)) => (StatusCode::from_u16(status).unwrap(), "because").into_response(),
        _ => StatusCode::OK.into_response(),
    }
}

fn target(name: &str, url: &str) -> Target {
    Target { timeout_ms: 300, ..Target::new(name, url, vec![Secret::parse(SECRET).unwrap()]) }
}

fn config(targets: Vec<Target>) -> DeliveryConfig {
    let retry = Retry { first_ms: 10, max_ms: 60, give_up_after_secs: 600, jitter: 0.2 };
    DeliveryConfig { targets, retry, ..DeliveryConfig::default() }
}

fn decision(id: &str, action: Action, ip: &str) -> Event {
    Event::Decision(Decision {
        id: id.to_owned(),
        time: Timestamp::from_parts(1_700_000_000, 0),
        action,
        matches: vec![MatchValue { kind: EntityKind::Ip, value: ip.to_owned() }],
        ttl_secs: if action == Action::Unblock { 0 } else { 600 },
        confidence: 95,
        policy: "ato".into(),
        campaign: None,
        reasons: Vec::new(),
        transactions: Vec::new(),
        dry_run: false,
        observability: 1.0,
    })
}

fn block(id: &str, ip: &str) -> Event {
    decision(id, Action::Block, ip)
}

fn assert_balanced(stats: &DeliveryStats, in_queue: u64) {
    assert_eq!(stats.offered, stats.coalesced + stats.refused + stats.taken + in_queue, "{stats:?}");
    for t in &stats.targets {
        let parked: u64 = t.parked.values().sum();
        let ended = t.delivered + parked + t.expired + t.dropped + t.pending;
        assert_eq!(t.accepted + t.resumed, ended, "{t:?}");
    }
}

#[test]
fn how_each_answer_ends() {
    use Answer::{RetryAfter, Status};
    type Row<'a> = (&'a str, &'a [Answer], u64, u64, &'a [(ParkReason, u64)]);
    let rows: [Row<'_>; 9] = [
        ("taken", &[Status(200)], 1, 0, &[]),
        ("taken, no content", &[Status(204)], 1, 0, &[]),
        ("500 then 200", &[Status(500), Status(502), Status(200)], 1, 2, &[]),
        ("429 with Retry-After", &[RetryAfter(429, "0"), Status(200)], 1, 1, &[]),
        ("503 with a date", &[RetryAfter(503, "Sun, 06 Nov 1994 08:49:37 GMT"), Status(200)], 1, 1, &[]),
        ("408, 425", &[Status(408), Status(425), Status(200)], 1, 2, &[]),
        ("refused", &[Status(422)], 0, 0, &[(ParkReason::Refused(422), 1)]),
        ("gone", &[Status(410)], 0, 0, &[(ParkReason::Refused(410), 1)]),
        ("elsewhere", &[Status(307)], 0, 0, &[(ParkReason::Redirected(307), 1)]),
    ];
    for (name, answers, delivered, retried, parked) in rows {
        let place = Place::new(answers);
        let delivery = Delivery::start(config(vec![target("t", &place.url)])).unwrap();
        assert!(delivery.offer(block("d1", "192.0.2.1")), "{name}");
        assert!(delivery.drain(SOON), "{name}");
        let stats = delivery.stop();
        let t = &stats.targets[0];
        assert_eq!((t.delivered, t.retried), (delivered, retried), "{name}");
        assert_eq!(t.parked.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>(), parked, "{name}");
        assert_eq!(place.ids().len() as u64, 1 + retried, "{name}");
        assert!(place.ids().iter().all(|id| id == "d1"), "{name}: every attempt has the same id");
        assert_eq!(stats.decision_to_delivered_us.len(), delivered, "{name}");
        assert_balanced(&stats, 0);
    }
}

#[test]
fn retry_after_is_honoured_up_to_the_longest_wait() {
    let place = Place::new(&[Answer::RetryAfter(429, "3600"), Answer::Status(200)]);
    let delivery = Delivery::start(config(vec![target("t", &place.url)])).unwrap();
    delivery.offer(block("d1", "192.0.2.1"));
    let start = clock::instant();
    while delivery.stats().targets[0].retried < 1 {
        assert!(start.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(1));
    }
    delivery.offer(block("d2", "192.0.2.2"));
    assert!(delivery.drain(SOON));
    let times: Vec<Instant> = place.fake.seen.lock().unwrap().iter().map(|s| s.2).collect();
    assert!(times[1] - times[0] >= Duration::from_millis(55), "the whole target waits: {times:?}");
    assert_eq!(delivery.stop().delivered(), 2);
}

#[test]
fn a_hanging_target_delays_no_other_and_no_caller() {
    let (hanging, good) = (Place::new(&[Answer::Hang]), Place::new(&[Answer::Status(200)]));
    let mut slow = target("hanging", &hanging.url);
    slow.timeout_ms = 60_000;
    let delivery = Delivery::start(config(vec![slow, target("good", &good.url)])).unwrap();
    let start = clock::instant();
    for n in 0..100 {
        assert!(delivery.offer(block(&format!("d{n}"), &format!("192.0.2.{n}"))));
    }
    // The hanging target would hold a caller that waits for a minute.
    assert!(start.elapsed() < Duration::from_secs(5), "offering does not wait");
    good.wait_for(100);
    let start = clock::instant();
    while delivery.stats().targets[1].delivered < 100 {
        assert!(start.elapsed() < SOON, "the other target's answers are taken");
        std::thread::sleep(Duration::from_millis(1));
    }
    let start = clock::instant();
    let stats = delivery.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "nor does stopping");
    assert_eq!(stats.targets[0].pending, 100);
    assert_eq!(stats.targets[1].delivered, 100);
    assert!(good.fake.open_most.load(Ordering::SeqCst) <= 32);
    assert_balanced(&stats, 0);
}

#[test]
fn timeouts_and_closed_ports_are_tried_again() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let place = Place::new(&[Answer::Hang, Answer::Status(200)]);
    let mut late = target("late", &place.url);
    late.timeout_ms = 40;
    let delivery = Delivery::start(config(vec![target("closed", &closed), late])).unwrap();
    delivery.offer(block("d1", "192.0.2.1"));
    place.wait_for(2);
    let start = clock::instant();
    while delivery.stats().targets[0].retried < 2 || delivery.stats().targets[1].delivered < 1 {
        assert!(start.elapsed() < SOON, "{:?}", delivery.stats());
        std::thread::sleep(Duration::from_millis(2));
    }
    let stats = delivery.stop();
    assert!(stats.targets[0].last_error.as_ref().unwrap().starts_with("no connection"));
    assert_eq!(stats.targets[1].last_error.as_deref().unwrap().split(':').next(), Some("no answer in time"));
    assert_balanced(&stats, 0);
}

#[test]
fn what_is_too_old_is_parked_or_dropped() {
    let place = Place::new(&[Answer::Status(500)]);
    let mut c = config(vec![target("t", &place.url)]);
    c.retry.give_up_after_secs = 0;
    let delivery = Delivery::start(c).unwrap();
    delivery.offer(block("d1", "192.0.2.1"));
    assert!(delivery.drain(SOON));
    let stats = delivery.stop();
    assert_eq!(stats.targets[0].parked, BTreeMap::from([(ParkReason::GaveUp, 1)]));
    let mut late = block("d2", "192.0.2.1");
    if let Event::Decision(d) = &mut late {
        d.ttl_secs = 0;
    }
    let delivery = Delivery::start(config(vec![target("t", &place.url)])).unwrap();
    delivery.offer(late);
    assert!(delivery.drain(SOON));
    let stats = delivery.stop();
    assert_eq!((stats.targets[0].expired, stats.targets[0].delivered), (1, 0));
    assert_eq!(place.ids(), ["d1"]);
    assert_balanced(&stats, 0);
}

#[test]
fn one_match_keeps_its_order_while_others_overtake() {
    let place = Place::new(&[Answer::Status(500), Answer::Status(200)]);
    let delivery = Delivery::start(config(vec![target("t", &place.url)])).unwrap();
    for (id, action, ip) in [
        ("a1", Action::Block, "192.0.2.1"),
        ("a2", Action::Unblock, "192.0.2.1"),
        ("a3", Action::Block, "192.0.2.1"),
        ("b1", Action::Block, "192.0.2.2"),
    ] {
        delivery.offer(decision(id, action, ip));
    }
    assert!(delivery.drain(SOON));
    let ids = place.ids();
    let of_a: Vec<&String> = ids.iter().filter(|id| id.starts_with('a')).collect();
    let mut ordered = of_a.clone();
    ordered.sort();
    assert_eq!(of_a, ordered, "{ids:?}");
    assert!(ids.contains(&"b1".to_owned()));
    assert_eq!(delivery.stop().delivered(), 4);
}

#[test]
fn filters() {
    type Row<'a> = (&'a str, Target, Event, bool);
    let base = || target("t", "http://127.0.0.1:1/");
    let dry = |mut e: Event| {
        if let Event::Decision(d) = &mut e {
            d.dry_run = true;
        }
        e
    };
    let alarm = || {
        Event::Alarm(Alarm {
            id: "a".into(),
            time: Timestamp::ZERO,
            kind: AlarmKind::ActiveFull,
            limit: 1,
            held_back: 1,
            policy: String::new(),
            matches: Vec::new(),
        })
    };
    let only = |actions: &[Action]| Target { actions: actions.to_vec(), ..base() };
    let rows: [Row<'_>; 11] = [
        ("block", base(), block("d", "192.0.2.1"), true),
        ("rehearsal", base(), dry(block("d", "192.0.2.1")), false),
        ("rehearsal wanted", Target { deliver_dry_run: true, ..base() }, dry(block("d", "192.0.2.1")), true),
        ("other action", only(&[Action::Tag]), block("d", "192.0.2.1"), false),
        ("unblock with block", only(&[Action::Block]), decision("d", Action::Unblock, "192.0.2.1"), true),
        ("unblock alone", only(&[Action::Unblock]), decision("d", Action::Unblock, "192.0.2.1"), true),
        ("no unblock", only(&[Action::Tag]), decision("d", Action::Unblock, "192.0.2.1"), false),
        ("confident", Target { confidence_min: 95, ..base() }, block("d", "192.0.2.1"), true),
        ("not confident", Target { confidence_min: 96, ..base() }, block("d", "192.0.2.1"), false),
        ("alarm", base(), alarm(), true),
        ("no alarm", Target { other_events: false, ..base() }, alarm(), false),
    ];
    for (name, target, event, want) in rows {
        assert_eq!(target.wants(&event), want, "{name}");
    }
}

#[test]
fn a_full_queue_keeps_the_latest_per_match() {
    // No thread takes anything: the intake alone.
    let mut c = config(Vec::new());
    c.queue_max = 2;
    let mut delivery = Delivery::start(c).unwrap();
    delivery.shut_down();
    assert!(delivery.offer(block("a1", "192.0.2.1")));
    assert!(delivery.offer(block("b1", "192.0.2.2")));
    assert!(!delivery.offer(block("c1", "192.0.2.3")), "full");
    assert!(delivery.offer(decision("a2", Action::Unblock, "192.0.2.1")), "replaces");
    let seen: Vec<String> = delivery.shared.intake().events.iter().map(|o| o.event.id().to_owned()).collect();
    assert_eq!(seen, ["a2", "b1"]);
    let stats = delivery.stats();
    assert_eq!((stats.offered, stats.coalesced, stats.refused), (4, 1, 1));
    assert_balanced(&stats, 2);
    assert!(!delivery.drain(Duration::from_millis(1)));
}

#[test]
fn memory_is_bounded_and_the_disk_takes_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    for durable in [false, true] {
        let place = Place::new(&[Answer::Status(503), Answer::Status(503), Answer::Status(200)]);
        let mut c = config(vec![target("t", &place.url)]);
        c.held_max = 10;
        c.outbox_rows_max = 50;
        c.outbox_path = durable.then(|| dir.path().join("outbox"));
        let delivery = Delivery::start(c).unwrap();
        for n in 0..100 {
            delivery.offer(block(&format!("d{n:03}"), &format!("192.0.2.{n}")));
        }
        assert!(delivery.drain(SOON));
        let stats = delivery.stop();
        let t = &stats.targets[0];
        assert_eq!(t.delivered + t.dropped, 100);
        if durable {
            // The first batch may have been taken before the rest was offered.
            assert!(t.delivered >= 50 && t.pending == 0, "{t:?}");
        } else {
            assert!(t.delivered >= 10 && t.dropped > 0, "{t:?}");
        }
        let mut ids = place.ids();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len() as u64, t.delivered, "everything accepted arrived");
        assert_balanced(&stats, 0);
    }
}

#[test]
fn an_outbox_that_cannot_be_written_loses_only_what_was_to_wait_there() {
    let (db, failing) = failing_store();
    let outbox = Outbox::on(db, vec!["t".to_owned()]).unwrap();
    let mut c = config(vec![target("t", "http://127.0.0.1:1/")]);
    c.held_max = 2;
    let mut delivery = Delivery::start(c).unwrap();
    delivery.shut_down();
    for n in 0..5 {
        delivery.offer(block(&format!("d{n}"), &format!("192.0.2.{n}")));
    }
    failing.store(true, Ordering::SeqCst);
    // The threads have ended; the stop is still set, so that the pump does one round.
    pump::Pump::new(delivery.shared.clone(), Some(outbox), 1).run();
    let stats = delivery.stats();
    // Once more at the stop, for what was handed out.
    assert_eq!((stats.commits, stats.commit_failures, delivery.kept()), (2, 2, 5));
    assert_eq!((stats.targets[0].accepted, stats.targets[0].dropped, stats.targets[0].pending), (5, 3, 2));
    assert_eq!(delivery.shared.intake().unfinished, 2, "a drain does not wait for what is lost");
    assert_balanced(&stats, 0);
}

#[test]
fn what_a_failing_disk_did_not_take_is_written_with_the_next_commit() {
    let (db, failing) = failing_store();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox");
    let mut outbox = Outbox::on(db, vec!["t".to_owned()]).unwrap();
    // The next commit opens this one.
    outbox.path = Some(path.clone());
    // Nobody listens, so nothing ends by itself.
    let mut delivery = Delivery::start(config(vec![target("t", "http://127.0.0.1:1/")])).unwrap();
    delivery.shut_down();
    delivery.shared.intake().stop = false;
    failing.store(true, Ordering::SeqCst);
    delivery.offer(block("d1", "192.0.2.1"));
    delivery.offer(block("d2", "192.0.2.2"));
    let pump = pump::Pump::new(delivery.shared.clone(), Some(outbox), 1);
    let pump = std::thread::spawn(move || pump.run());
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let start = clock::instant();
        while !holds() {
            assert!(start.elapsed() < SOON, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    // Nothing else happens, and it is written all the same.
    until("written by itself", &|| delivery.stats().commits >= 2);
    assert_eq!(delivery.stats().commit_failures, 1);
    delivery.shared.intake().stop = true;
    delivery.shared.intake_ready.notify_all();
    pump.join().unwrap();
    let again = Outbox::open(&path, vec!["t".to_owned()]).unwrap();
    assert_eq!(again.survey().unwrap(), (vec![2], 3));
    let ids: Vec<_> = again.load(0, 0, 9).unwrap().iter().map(|row| row.id.to_string()).collect();
    assert_eq!(ids, ["d1", "d2"]);
}

#[test]
fn printing_shows_no_credentials_and_no_histogram() {
    let c = config(vec![target("t", "https://user:hunter2@waf.example/T0/s3cret")]);
    let delivery = Delivery::start(c.clone()).unwrap();
    let text = format!("{c:?} {:?}", delivery.stop());
    assert!(!text.contains("hunter2") && !text.contains("s3cret"), "{text}");
    assert!(text.len() < 2000, "{text}");
    let wrong = Delivery::start(config(vec![target("t", "https://user:hunter2@[waf/")])).err().unwrap();
    assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
}

#[test]
fn an_outbox_resumes_after_the_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox");
    let dead: SocketAddr = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let mut c =
        config(vec![target("t", &format!("http://{dead}/")), target("gone", &format!("http://{dead}/"))]);
    c.outbox_path = Some(path.clone());
    let delivery = Delivery::start(c.clone()).unwrap();
    for n in 0..20 {
        delivery.offer(block(&format!("d{n:02}"), &format!("192.0.2.{n}")));
    }
    assert!(!delivery.drain(Duration::from_millis(50)));
    let stats = delivery.stop();
    assert_eq!(stats.targets[0].pending, 20);
    // The same target elsewhere; the other is no longer configured.
    let place = Place::new(&[Answer::Status(200)]);
    c.targets = vec![target("t", &place.url)];
    let delivery = Delivery::start(c.clone()).unwrap();
    assert!(delivery.drain(SOON));
    let stats = delivery.stop();
    assert_eq!((stats.targets[0].resumed, stats.targets[0].delivered), (20, 20));
    assert_balanced(&stats, 0);
    let mut ids = place.ids();
    ids.sort();
    assert_eq!(ids, (0..20).map(|n| format!("d{n:02}")).collect::<Vec<_>>());
    let delivery = Delivery::start(c).unwrap();
    assert!(delivery.drain(SOON));
    assert_eq!(delivery.stop().targets[0].resumed, 0, "nothing is left");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

/// The child of the test below: delivers to a target that never answers, and says when it is durable.
#[test]
#[ignore = "run by a_decision_survives_kill_9"]
fn child_for_kill_9() {
    let (path, url) =
        (std::env::var("OFFPATH_TEST_OUTBOX").unwrap(), std::env::var("OFFPATH_TEST_URL").unwrap());
    let mut c = config(vec![Target { timeout_ms: 60_000, ..target("t", &url) }]);
    c.outbox_path = Some((&path).into());
    let delivery = Delivery::start(c).unwrap();
    for n in 0..50 {
        delivery.offer(block(&format!("d{n:02}"), &format!("192.0.2.{n}")));
    }
    while delivery.kept() < 50 {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(format!("{path}.kept"), "").unwrap();
    loop {
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_decision_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox");
    let hanging = Place::new(&[Answer::Hang]);
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "delivery::tests::child_for_kill_9", "--ignored"])
        .env("OFFPATH_TEST_OUTBOX", &path)
        .env("OFFPATH_TEST_URL", &hanging.url)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let kept = dir.path().join("outbox.kept");
    for _ in 0..2000 {
        if kept.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(kept.exists(), "the child says when every decision is kept");
    child.kill().unwrap();
    child.wait().unwrap();
    let place = Place::new(&[Answer::Status(200)]);
    let mut c = config(vec![target("t", &place.url)]);
    c.outbox_path = Some(path);
    let delivery = Delivery::start(c).unwrap();
    assert!(delivery.drain(SOON));
    let stats = delivery.stop();
    assert_eq!(stats.targets[0].resumed, 50, "{stats:?}");
    assert_eq!(stats.targets[0].delivered, stats.targets[0].resumed);
    for id in hanging.ids() {
        assert!(place.ids().contains(&id), "{id} reached nobody alive");
    }
}

#[test]
fn what_cannot_start_says_why() {
    let bad = |t: Target| Delivery::start(config(vec![t])).err().unwrap().to_string();
    assert!(bad(target("t", "not a url")).contains("is no URL"));
    assert!(bad(target("t", "ftp://x/")).contains("neither http nor https"));
    assert!(bad(Target { secrets: vec![], ..target("t", "http://x/") }).contains("no secret"));
    let two = config(vec![target("t", "http://x/"), target("t", "http://y/")]);
    assert!(Delivery::start(two).err().unwrap().to_string().contains("same name"));
    let nowhere = DeliveryConfig { outbox_path: Some("/nonexistent/outbox".into()), ..config(vec![]) };
    assert!(Delivery::start(nowhere).err().unwrap().to_string().contains("/nonexistent/outbox"));
}
