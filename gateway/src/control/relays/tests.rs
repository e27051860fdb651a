use std::net::Ipv4Addr;

use frp_gateway_config::secret::Secret;

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
            certificate: None,
            replaced: false,
        }
    }

    /// The same while an frps is emptied.
    fn draining(&self, frps: &str) -> Self {
        let handle = |handle: &Arc<FrpsHandle>| {
            let drain = *handle.live.name == *frps;
            Arc::new(FrpsHandle { live: Arc::clone(&handle.live), weight: 1, zone: None, drain })
        };
        Self {
            relays: Arc::clone(&self.relays),
            frps: self.frps.iter().map(handle).collect(),
            listener: Arc::clone(&self.listener),
            together: self.together,
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
    let login = |world: &World, user, port| {
        world.place(&world.request(Kind::Control, peer(1, port), Some(user)), &[]).unwrap()
    };
    let (first, other) = (login(&world, "alice", 1), login(&world, "bob", 2));
    assert_ne!(first.frps.name, other.frps.name);
    let more: Vec<_> = (3..9).map(|port| login(&world, "alice", port)).collect();
    assert!(more.iter().all(|one| one.frps.name == first.frps.name));
    let world = world.draining(&first.frps.name);
    let moved = login(&world, "alice", 10);
    assert_ne!(moved.frps.name, first.frps.name);
    let second = login(&world, "alice", 11);
    assert_eq!(second.frps.name, moved.frps.name, "the next one follows the one that moved");
}

#[test]
fn when_nobody_is_eligible_somebody_is_tried_all_the_same() {
    let world = World::new(&["a", "b"], Together::Nobody).draining("a");
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
    assert!(!world.relays.told("a", "127.0.0.1:4712", ("alice", "edge"), false));
    assert!(!world.relays.told("b", "127.0.0.1:4711", ("alice", "edge"), false), "another frps");
    assert!(world.relays.told("a", "127.0.0.1:4711", ("alice", "edge"), false));
    let found = world.relays.find("a", "alice", "edge", None);
    assert_eq!(found.iter().map(|info| info.id).collect::<Vec<_>>(), [id]);
    assert!(world.relays.cut(id) && !world.relays.cut(id + 1));
    drop(placed);
    assert!(!world.relays.told("a", "127.0.0.1:4711", ("alice", "edge"), false) && !world.relays.cut(id));
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
    let world = world.draining(&two.frps.name);
    let work = world.place(&world.request(Kind::Opaque, peer(1, 4), None), &[]).unwrap();
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
    let but = |user, client_id, run, but| {
        let login = Successor { user, client_id, run, shown: Shown::Nothing };
        world.relays.rivals(&login, but, crate::clock::now(), SystemTime::now()).ids
    };
    let rivals = |user, client_id, run| but(user, client_id, run, None);
    assert_eq!(rivals("u", "edge", None), [named.registered.id]);
    assert_eq!(rivals("u", "", None), [0u64; 0], "a user may have many clients");
    assert_eq!(rivals("x", "", Some(run)), [nameless.registered.id]);
    assert!(world.relays.has_any(&[nameless.registered.id]));
    drop((named, nameless));
    assert!(rivals("u", "edge", Some(run)).is_empty());
    assert_eq!(but("v", "edge", None, Some(other.registered.id)), [0u64; 0], "not itself");
}

#[test]
fn who_knows_the_token_has_its_predecessor_cut_but_not_one_that_came_so_itself_within_a_minute() {
    // `printf %s open-sesame1795399924 | md5sum`
    let proof = Proof::new("a363943771a966372bd81263d2937edf".into(), 1_795_399_924);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_399_930);
    let world = World::new(&["a"], Together::Nobody);
    let live = &world.frps[0].live;
    let start = crate::clock::now();
    let login = |port, replaced| {
        let request =
            Request { client_id: "edge", replaced, ..world.request(Kind::Control, peer(1, port), Some("u")) };
        world.relays.place(&request, &[], start, time).unwrap().registered
    };
    let try_at = |after: Duration| {
        let login = Successor { user: "u", client_id: "edge", run: None, shown: Shown::Proof(&proof) };
        world.relays.rivals(&login, None, start.saturating_add(after), time).cut
    };
    let first = login(1, false);
    assert!(!try_at(Duration::ZERO), "the gateway knows no token");
    live.set_token(Some(&Secret::new("another")));
    assert!(!try_at(Duration::ZERO));
    live.set_token(Some(&Secret::new("open-sesame")));
    assert!(try_at(Duration::ZERO));
    drop(first);
    let _second = login(2, true);
    assert!(!try_at(Duration::from_secs(59)), "it has just replaced another");
    assert!(!try_at(Duration::from_secs(118)), "each try makes that longer");
    assert!(try_at(Duration::from_secs(179)));
}

/// The process after it, told what there is to know.
fn next(old: &World) -> World {
    let new = World { listener: Arc::clone(&old.listener), ..World::new(&["a", "b", "c"], old.together) };
    new.told(old);
    new
}

impl World {
    fn told(&self, old: &Self) {
        let told = serde_json::to_vec(&old.relays.inheritance()).unwrap();
        let told = serde_json::from_slice(&told).unwrap();
        let together = |name: &str| (*name == *self.listener).then_some(self.together);
        self.relays.inherit(&told, &self.frps, together, Tick::from_nanos(1));
    }

    fn adopted(&self, carried: &Carried) -> Registered {
        let frps = self.frps.iter().find(|frps| *frps.live.name == *carried.frps).unwrap();
        self.relays.adopt(carried, &frps.live, self.together, Tick::from_nanos(1))
    }

    fn clients(&self) -> Vec<(Option<String>, String)> {
        self.relays.all().into_iter().map(|info| (info.user, info.frps.to_string())).collect()
    }
}

#[test]
fn the_next_process_knows_all_clients_before_it_has_them_and_counts_them_once() {
    let old = World::new(&["a", "b", "c"], Together::User);
    let users = ["u", "v", "u", "w"];
    let logins: Vec<_> = (0..)
        .zip(users)
        .map(|(port, user)| old.place(&old.request(Kind::Control, peer(1, port), Some(user)), &[]).unwrap())
        .collect();
    let new = next(&old);
    assert_eq!(new.clients(), old.clients());
    assert_eq!(new.relays.elsewhere().len(), 4);
    let another = new.place(&new.request(Kind::Control, peer(9, 9), Some("u")), &[]).unwrap();
    assert_eq!(another.frps.name, logins[0].frps.name, "together, wherever they are");
    drop(another);

    let told = old.relays.inheritance().relays;
    let adopted: Vec<_> = told.iter().map(|carried| new.adopted(carried)).collect();
    assert!(new.relays.elsewhere().is_empty());
    assert_eq!(new.clients(), old.clients());
    let open: u64 = new.relays.counts().iter().map(|(_, counts)| counts.open).sum();
    assert_eq!(open, 4);
    new.told(&old);
    assert_eq!(new.clients(), old.clients(), "told again, nothing is there twice");
    drop(adopted);
    new.relays.alone();
    assert!(new.relays.all().is_empty() && new.frps.iter().all(|frps| frps.live.clients() == 0));
}

#[test]
fn work_connections_find_a_session_that_is_still_in_the_process_before() {
    let old = World::new(&["a", "b", "c"], Together::Nobody);
    let mut logins = Vec::new();
    for n in 0..6u16 {
        let login = old.place(&old.request(Kind::ControlWithoutMux, peer(1, n), Some("u")), &[]).unwrap();
        old.relays.logged_in(login.registered.id, old.relays.hash(&RunId::new(format!("run-{n}")).unwrap()));
        logins.push(login);
    }
    let hidden = old.place(&old.request(Kind::Opaque, peer(7, 1), None), &[]).unwrap();
    old.relays.turned_out(hidden.registered.id, Kind::ControlWithoutMux);
    let new = next(&old);
    for (n, login) in (0..).zip(&logins) {
        let run = new.relays.hash(&RunId::new(format!("run-{n}")).unwrap());
        let request = Request { run: Some(run), ..new.request(Kind::Work, peer(9, n), None) };
        assert_eq!(new.place(&request, &[]).unwrap().frps.name, login.frps.name, "run {n}");
    }
    let work = new.place(&new.request(Kind::Opaque, peer(7, 2), None), &[]).unwrap();
    assert_eq!(work.frps.name, hidden.frps.name, "by its address");
}

#[test]
fn whoever_is_still_in_the_process_before_is_cut_there_and_forgotten_here() {
    let old = World::new(&["a"], Together::Nobody);
    let placed = |port| old.place(&old.request(Kind::Control, peer(1, port), Some("u")), &[]).unwrap();
    let (first, second) = (placed(1), placed(2));
    let new = next(&old);
    let (beyond, mut cuts) = mpsc::unbounded_channel();
    new.relays.cut_there_by(beyond);
    let here: Vec<_> = new.relays.elsewhere().iter().map(|info| info.id).collect();
    assert!(new.relays.cut(here[0]) && !new.relays.cut(here[0]));
    assert_eq!(cuts.try_recv(), Ok(first.registered.id), "by that process's number");
    drop((first, second));
    new.told(&old);
    assert!(new.relays.all().is_empty(), "those that ended there are not here either");
}
