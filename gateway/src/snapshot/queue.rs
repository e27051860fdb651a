//! Requests that wait for a slot while every eligible endpoint of their pool is at its limit. First come, first served.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use tokio::sync::Notify;

/// The line of one pool; all workers share it. Only touched while the pool is at its limits.
#[derive(Debug, Default)]
pub struct WaitQueue {
    waiting: AtomicU32,
    line: Mutex<VecDeque<Arc<Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    bell: Notify,
    /// The only endpoint that will do.
    bound: Option<u64>,
}

impl Waiting {
    /// Whether it may look although `before` came first: who can use one endpoint alone holds up only those who want the
    /// same.
    fn may_pass(&self, before: &Self) -> bool {
        match (self.bound, before.bound) {
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
            (Some(own), Some(other)) => own != other,
        }
    }
}

impl WaitQueue {
    /// Requests in line.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Joins the line at its end; `None` when `size` requests are in it. `bound`: the number of the only endpoint that
    /// will do.
    #[must_use]
    pub fn join(&self, size: u32, bound: Option<u64>) -> Option<Ticket<'_>> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if self.waiting.load(SeqCst) >= size {
            return None;
        }
        let place = Arc::new(Waiting { bell: Notify::new(), bound });
        line.push_back(Arc::clone(&place));
        self.waiting.fetch_add(1, SeqCst);
        Some(Ticket { queue: self, place })
    }

    /// A slot has become free: the first in line looks again.
    pub fn wake(&self) {
        if self.is_empty() {
            return;
        }
        if let Some(first) = self.line.lock().unwrap_or_else(PoisonError::into_inner).front() {
            first.bell.notify_one();
        }
    }
}

/// A place in line. Dropping it leaves the line, and the next one looks whether there is room for it as well.
#[derive(Debug)]
pub struct Ticket<'a> {
    queue: &'a WaitQueue,
    place: Arc<Waiting>,
}

impl Ticket<'_> {
    /// Whether nobody is before us who could use what we could.
    #[must_use]
    pub fn is_first(&self) -> bool {
        let line = self.queue.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.iter()
            .take_while(|other| !Arc::ptr_eq(other, &self.place))
            .all(|before| self.place.may_pass(before))
    }

    /// We looked, and our endpoint has no room: whoever is behind us and wants another one looks.
    pub fn pass_on(&self) {
        if self.place.bound.is_none() {
            return;
        }
        let line = self.queue.line.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = line.iter().skip_while(|other| !Arc::ptr_eq(other, &self.place)).skip(1);
        if let Some(next) = behind.into_iter().find(|next| next.may_pass(&self.place)) {
            next.bell.notify_one();
        }
    }

    /// What rings when it is worth looking again.
    #[must_use]
    pub fn bell(&self) -> &Notify {
        &self.place.bell
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.retain(|other| !Arc::ptr_eq(other, &self.place));
        self.queue.waiting.fetch_sub(1, SeqCst);
        if let Some(first) = line.front() {
            first.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_bounded_and_moves_up_when_the_first_leaves() {
        let queue = WaitQueue::default();
        let first = queue.join(2, None).expect("there is room");
        let second = queue.join(2, None).expect("there is room");
        assert!(queue.join(2, None).is_none(), "the line is full");
        assert!(first.is_first() && !second.is_first());
        drop(first);
        assert!(second.is_first(), "the second moved up");
        drop(second);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_free_slot_wakes_the_first_and_who_leaves_wakes_the_next() {
        let queue = WaitQueue::default();
        let first = queue.join(9, None).expect("there is room");
        let second = queue.join(9, None).expect("there is room");
        queue.wake();
        first.bell().notified().await;
        drop(first);
        second.bell().notified().await;
    }

    #[tokio::test]
    async fn who_can_use_one_endpoint_alone_holds_up_only_those_who_want_the_same() {
        let queue = WaitQueue::default();
        let bound = queue.join(9, Some(1)).expect("there is room");
        let same = queue.join(9, Some(1)).expect("there is room");
        let free = queue.join(9, None).expect("there is room");
        let next = queue.join(9, None).expect("there is room");
        assert_eq!([&bound, &same, &free, &next].map(Ticket::is_first), [true, false, true, false]);
        queue.wake();
        bound.bell().notified().await;
        bound.pass_on();
        free.bell().notified().await;
        drop(bound);
        assert!(same.is_first(), "it moved up");
    }

    #[test]
    fn who_gives_up_in_the_middle_leaves_the_order_of_the_others() {
        let queue = WaitQueue::default();
        let first = queue.join(9, None).expect("there is room");
        let middle = queue.join(9, None).expect("there is room");
        let last = queue.join(9, None).expect("there is room");
        drop(middle);
        assert!(first.is_first() && !last.is_first());
        drop(first);
        assert!(last.is_first());
    }
}
