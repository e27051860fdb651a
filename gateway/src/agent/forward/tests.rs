use super::*;
use crate::frps::heard::Report;

fn thing(name: &str) -> Bytes {
    let heard = Heard::Closing { name: name.to_owned(), user: "u".to_owned() };
    serde_json::to_vec(&heard).unwrap().into()
}

fn names(batch: &Batch) -> Vec<String> {
    let report: Report = serde_json::from_slice(&batch.body).unwrap();
    assert_eq!(report.frps, "a \"b\"");
    let name = |heard| match heard {
        Heard::Closing { name, .. } | Heard::Claim { name, .. } => name,
        Heard::Login { user, .. } => user,
    };
    report.heard.into_iter().map(name).collect()
}

const FRPS: &str = "a \"b\"";

#[test]
fn an_empty_queue_gives_no_report() {
    let queue = Queue::default();
    assert!(queue.batch(FRPS).is_none());
    queue.push(thing("1"));
    assert_eq!(queue.forget(1), 1);
    assert!(queue.batch(FRPS).is_none());
}

#[test]
fn a_report_is_what_a_gateway_reads_and_holds_the_oldest_in_order() {
    let queue = Queue::default();
    for number in 0..300 {
        queue.push(thing(&number.to_string()));
    }
    let batch = queue.batch(FRPS).unwrap();
    let wanted: Vec<_> = (0..256).map(|number| number.to_string()).collect();
    assert_eq!(names(&batch), wanted);
    assert_eq!(queue.batch(FRPS).unwrap().end, 256, "it stays until forgotten");
    assert_eq!(queue.forget(batch.end), 256);
    assert_eq!(names(&queue.batch(FRPS).unwrap()).len(), 44);
}

#[test]
fn no_report_is_larger_than_a_gateway_reads() {
    let queue = Queue::default();
    let long = "x".repeat(50_000);
    for number in 0..10 {
        queue.push(thing(&format!("{long}{number}")));
    }
    let mut told = 0;
    while let Some(batch) = queue.batch(FRPS) {
        assert!(batch.body.len() < 256 * 1024 - 1024, "{}", batch.body.len());
        told += names(&batch).len();
        queue.forget(batch.end);
    }
    assert_eq!(told, 10);
}

#[test]
fn a_thing_that_fits_no_report_is_dropped_and_counted() {
    let queue = Queue::default();
    queue.push(thing(&"x".repeat(BATCH_BYTES)));
    queue.push(thing("next"));
    assert_eq!(names(&queue.batch(FRPS).unwrap()), ["next"]);
    assert_eq!(queue.lock().dropped, 1);
}

#[test]
fn when_too_many_wait_the_oldest_are_dropped_and_counted() {
    let queue = Queue::default();
    for number in 0..MOST_WAITING + 5 {
        queue.push(thing(&number.to_string()));
    }
    assert_eq!(names(&queue.batch(FRPS).unwrap())[0], "5");
    let waiting = queue.lock();
    assert_eq!((waiting.things.len(), waiting.dropped), (MOST_WAITING, 5));
}

#[test]
fn what_waits_is_bounded_in_bytes_and_adds_up() {
    let queue = Queue::default();
    let long = "x".repeat(100_000);
    for number in 0..200 {
        queue.push(thing(&format!("{number:03}{long}")));
    }
    let waiting = queue.lock();
    let sum: usize = waiting.things.iter().map(Bytes::len).sum();
    assert_eq!(waiting.bytes, sum);
    assert!(sum <= MOST_WAITING_BYTES, "{sum}");
    assert_eq!(waiting.things.len() as u64 + waiting.dropped, 200);
}

#[test]
fn what_was_dropped_during_a_report_is_not_taken_for_what_came_after() {
    let queue = Queue::default();
    for number in 0..10 {
        queue.push(thing(&number.to_string()));
    }
    let batch = queue.batch(FRPS).unwrap();
    for number in 10..MOST_WAITING + 4 {
        queue.push(thing(&number.to_string()));
    }
    assert_eq!(queue.forget(batch.end), 6, "four of the ten were dropped meanwhile");
    assert_eq!(names(&queue.batch(FRPS).unwrap())[0], "10");
}
