use std::net::Ipv4Addr;

use super::*;

fn fleet(names: &[&str]) -> Vec<Arc<FrpsHandle>> {
    let handle = |name: &&str| {
        let live = Arc::new(FrpsLive::new((*name).into(), "127.0.0.1", Some(7000)));
        Arc::new(FrpsHandle { live, weight: 1, zone: None, drain: false })
    };
    names.iter().map(handle).collect()
}

fn peer(host: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, host), port).into()
}

struct World {
    relays: Arc<Relays>,
    frps: Vec<Arc<FrpsHandle>>,
    listener: Arc<str>,
    together: Together,
}

impl World {
    fn new(names: &[&str], together: Together) -> Self {
        Self { relays: Arc::default(), frps: fleet(names), listener: "frp".into(), together }
    }

    fn request<'a>(&'a self, kind: Kind, peer: SocketAddr, user: Option<&'a str>) -> Request<'a> {
        Request {
            listener: &self.listener,
            frps: &self.frps,
            place: Place::LeastTunnels,
            together: self.together,
            peer,
            kind,
            user,
            client_id: "",
            run: None,
            tls_ended: false,
        }
    }

    fn place(&self, request: &Request<'_>, tried: &[Arc<str>]) -> Option<Placed> {
        self.relays.place(request, tried, Tick::from_nanos(1), SystemTime::UNIX_EPOCH)
    }
}

#[test]
fn clients_that_dial_at_once_are_spread_and_leave_no_trace() {
    let world = World::new(&["a", "b", "c"], Together::Nobody);
    let all: Vec<_> = (0..12)
        .map(|port| world.place(&world.request(Kind::Opaque, peer(1, port), None), &[]).unwrap())
        .collect();
    for frps in &world.frps {
        assert_eq!((frps.live.clients(), frps.live.tunnels()), (4, 4), "{}", frps.live.name);
        assert_eq!(world.relays.of(&frps.live.name).len(), 4);
    }
    drop(all);
    assert!(world.frps.iter().all(|frps| frps.live.clients() == 0 && frps.live.tunnels() == 0));
    let inner = world.relays.lock();
    assert!(inner.entries.is_empty() && inner.by_key.is_empty() && inner.by_source.is_empty());
    assert!(inner.counts.values().all(|counts| counts.open == 0 && counts.placed == 4), "{:?}", inner.counts);
}

#[test]
fn work_connections_follow_the_session_that_they_name() {
    let world = World::new(&["a", "b", "c"], Together::Nobody);
    let (mut logins, mut runs) = (Vec::new(), Vec::new());
    for n in 0..6u16 {
        let login = world.place(&world.request(Kind::ControlWithoutMux, peer(1, n), Some("u")), &[]).unwrap();
        let run = world.relays.hash(&RunId::new(format!("run-{n}")).unwrap());
        world.relays.logged_in(login.registered.id, run);
        runs.push(run);
        logins.push(login);
    }
    for (n, (login, run)) in (0..).zip(logins.iter().zip(&runs)) {
        let request = Request { run: Some(*run), ..world.request(Kind::Work, peer(9, n), None) };
        let work = world.place(&request, &[]).unwrap();
        assert_eq!(work.frps.name, login.frps.name, "work of run {n}");
        assert!(work.only_here);
        let tried = [Arc::clone(&work.frps.name)];
        assert!(world.place(&request, &tried).is_none(), "nobody else knows the session");
    }
    assert_eq!(world.frps.iter().map(|frps| frps.live.clients()).sum::<u32>(), 6, "work is no client");
}

#[test]
fn opaque_connections_follow_a_client_without_mux_of_their_address_and_no_other() {
    let world = World::new(&["a", "b", "c"], Together::Nobody);
    let opaque = |host, port| world.place(&world.request(Kind::Opaque, peer(host, port), None), &[]).unwrap();
    let (mux, other) = (opaque(1, 1), opaque(1, 2));
    assert_ne!(mux.frps.name, other.frps.name, "clients with mux are spread");
    world.relays.turned_out(mux.registered.id, Kind::Control);
    let login = opaque(2, 1);
    world.relays.turned_out(login.registered.id, Kind::ControlWithoutMux);
    for port in 2..20 {
        let work = opaque(2, port);
        assert_eq!(work.frps.name, login.frps.name);
        world.relays.turned_out(work.registered.id, Kind::Work);
        assert_eq!(work.frps.clients(), 1, "work is no client");
    }
}

#[test]
fn clients_that_belong_together_stay_while_their_frps_is_eligible() {
    let world = World::new(&["a", "b", "c"], Together::User);
    let login =
        |user, port| world.place(&world.request(Kind::Control, peer(1, port), Some(user)), &[]).unwrap();
    let (first, other) = (login("alice", 1), login("bob", 2));
    assert_ne!(first.frps.name, other.frps.name);
    let more: Vec<_> = (3..9).map(|port| login("alice", port)).collect();
    assert!(more.iter().all(|one| one.frps.name == first.frps.name));
    first.frps.set_draining(true);
    let moved = login("alice", 10);
    assert_ne!(moved.frps.name, first.frps.name);
    let second = login("alice", 11);
    assert_eq!(second.frps.name, moved.frps.name, "the next one follows the one that moved");
}

#[test]
fn when_nobody_is_eligible_somebody_is_tried_all_the_same() {
    let world = World::new(&["a", "b"], Together::Nobody);
    world.frps[0].live.set_draining(true);
    world.frps[1].live.failed(Tick::from_nanos(1));
    let placed = world.place(&world.request(Kind::Control, peer(1, 1), None), &[]).unwrap();
    assert_eq!(&*placed.frps.name, "b", "what is down may be up by now");
    assert!(!placed.has_other);
}

#[test]
fn a_login_call_names_the_connection_it_came_from() {
    let world = World::new(&["a"], Together::Nobody);
    let placed = world.place(&world.request(Kind::Opaque, peer(1, 1), None), &[]).unwrap();
    let id = placed.registered.id;
    world.relays.connected(id, "127.0.0.1:4711".parse().unwrap());
    assert!(!world.relays.told("a", "127.0.0.1:4712", "alice", "edge"));
    assert!(!world.relays.told("b", "127.0.0.1:4711", "alice", "edge"), "another frps");
    assert!(world.relays.told("a", "127.0.0.1:4711", "alice", "edge"));
    let found = world.relays.find("a", "alice", "edge", None);
    assert_eq!(found.iter().map(|info| info.id).collect::<Vec<_>>(), [id]);
    assert!(world.relays.cut(id) && !world.relays.cut(id + 1));
    drop(placed);
    assert!(!world.relays.told("a", "127.0.0.1:4711", "alice", "edge") && !world.relays.cut(id));
}

#[test]
fn one_address_may_wait_with_so_many_and_no_more() {
    let relays = Arc::<Relays>::default();
    let source = peer(1, 1).ip();
    let held: Vec<_> = (0..3).map(|_| relays.wait(source, 3).expect("free")).collect();
    assert!(relays.wait(source, 3).is_none() && relays.wait(peer(2, 1).ip(), 3).is_some());
    drop(held);
    assert!(relays.wait(source, 3).is_some());
}

#[test]
fn hidden_clients_without_mux_gather_where_the_last_is_and_leave_a_draining_frps_together() {
    let world = World::new(&["a", "b", "c"], Together::Nobody);
    let opaque = |port| world.place(&world.request(Kind::Opaque, peer(1, port), None), &[]).unwrap();
    // Two that dial in the same instant: neither is known yet, so they are apart.
    let (one, two) = (opaque(1), opaque(2));
    assert_ne!(one.frps.name, two.frps.name);
    for placed in [&one, &two] {
        world.relays.turned_out(placed.registered.id, Kind::ControlWithoutMux);
    }
    let (source, fresh) = (peer(1, 1).ip(), Duration::from_secs(2));
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let is_cut = |placed: &Placed| {
        let mut cut = Box::pin(placed.registered.cut.notified());
        let waker = std::task::Waker::noop();
        std::future::Future::poll(cut.as_mut(), &mut std::task::Context::from_waker(waker)).is_ready()
    };
    assert_eq!(world.relays.gather(source, at(1), fresh), 1, "it may be logging in");
    assert!(!is_cut(&one) && !is_cut(&two));
    assert_eq!(world.relays.gather(source, at(2), fresh), 0);
    assert!(is_cut(&one) && !is_cut(&two));
    drop(one);
    let again = opaque(3);
    assert_eq!(again.frps.name, two.frps.name, "it follows");
    world.relays.turned_out(again.registered.id, Kind::ControlWithoutMux);
    // Now that frps is drained, and one of the two is cut.
    two.frps.set_draining(true);
    let work = opaque(4);
    assert_eq!(work.frps.name, two.frps.name, "work goes where its client is");
    drop(again);
    let place = |port| {
        let request = world.request(Kind::Opaque, peer(1, port), None);
        world.relays.place(&request, &[], crate::clock::now(), at(3)).unwrap()
    };
    let moved = place(5);
    assert_ne!(moved.frps.name, two.frps.name, "it must not come back because of the other");
    world.relays.turned_out(moved.registered.id, Kind::ControlWithoutMux);
    assert_eq!(world.relays.gather(source, at(9), fresh), 0);
    assert!(is_cut(&two), "the other comes along");
}

#[test]
fn rivals_are_of_the_same_session_or_the_same_user_and_client_id_and_nobody_else() {
    let world = World::new(&["a"], Together::Nobody);
    let login = |port, user: &'static str, client_id: &'static str| {
        let request = Request { client_id, ..world.request(Kind::Control, peer(1, port), Some(user)) };
        world.place(&request, &[]).unwrap()
    };
    let (named, nameless, other) = (login(1, "u", "edge"), login(2, "u", ""), login(3, "v", "edge"));
    let run = world.relays.hash(&RunId::new("run".into()).unwrap());
    world.relays.logged_in(nameless.registered.id, run);
    let rivals = |user, client_id, run| world.relays.rivals(user, client_id, run, None);
    assert_eq!(rivals("u", "edge", None), [named.registered.id]);
    assert_eq!(rivals("u", "", None), [0u64; 0], "a user may have many clients");
    assert_eq!(rivals("x", "", Some(run)), [nameless.registered.id]);
    assert!(world.relays.has_any(&[nameless.registered.id]));
    drop((named, nameless));
    assert!(rivals("u", "edge", Some(run)).is_empty());
    assert_eq!(world.relays.rivals("v", "edge", None, Some(other.registered.id)), [0u64; 0], "not itself");
}
