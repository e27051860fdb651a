//! The writer with its hands: real files, real sockets.

use std::net::TcpStream;

use super::*;
use crate::control::testing::{Rig, yaml};

fn address(rig: &Rig, listener: &str) -> SocketAddr {
    rig.handle.state().addresses[listener]
}

fn second(address: &str) -> String {
    yaml(&format!("  - {{ name: second, bind: \"{address}\", protocol: http }}\n"))
}

#[tokio::test]
async fn a_listener_is_added_and_removed_live() {
    let rig = Rig::start(&yaml("")).await;
    let web = address(&rig, "web");
    assert_eq!(rig.reload(&second("127.0.0.1:0")).await, ReloadResult::Changed { generation: 2 });
    let added = address(&rig, "second");
    assert_eq!(address(&rig, "web"), web, "port 0 is not drawn again");
    TcpStream::connect(web).unwrap();
    TcpStream::connect(added).unwrap();
    assert_eq!(rig.reload(&yaml("")).await, ReloadResult::Changed { generation: 3 });
    assert!(!rig.handle.state().addresses.contains_key("second"));
    TcpStream::connect(web).unwrap();
}

#[tokio::test]
async fn an_equal_file_changes_nothing() {
    let rig = Rig::start(&yaml("")).await;
    let before = rig.published.load_full();
    let commented = format!("{}# a comment\n", yaml(""));
    assert_eq!(rig.reload(&commented).await, ReloadResult::Unchanged { generation: 1 });
    assert!(Arc::ptr_eq(&before, &rig.published.load_full()), "not even a new snapshot");
}

#[tokio::test]
async fn a_taken_port_refuses_the_whole_reload_and_names_listener_and_key() {
    let rig = Rig::start(&yaml("")).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let before = rig.published.load_full();
    let text = second(&taken.local_addr().unwrap().to_string()).replace("shop.test", "other.test");
    let ReloadResult::Refused(faults) = rig.reload(&text).await else { panic!("it must be refused") };
    assert_eq!(faults.len(), 1, "{faults:?}");
    let told = &faults[0].text;
    assert!(told.contains("listeners[1].bind") && told.contains("\"second\""), "{told}");
    assert!(Arc::ptr_eq(&before, &rig.published.load_full()), "the old routes stay too");
    let state = rig.handle.state();
    assert_eq!((state.generation, state.reloads.failed), (1, 1));
    assert_eq!(state.reloads.faults, faults, "shown in the API");
    drop(taken);
    assert_eq!(rig.reload(&text).await, ReloadResult::Changed { generation: 2 });
}

#[tokio::test]
async fn a_wrong_file_leaves_the_old_state() {
    let rig = Rig::start(&yaml("")).await;
    let result = rig.reload("listeners: 7\n").await;
    assert!(matches!(&result, ReloadResult::Refused(faults) if !faults.is_empty()), "{result:?}");
    assert_eq!(rig.published.load().generation, 1);
    TcpStream::connect(address(&rig, "web")).unwrap();
}

#[tokio::test]
async fn a_renamed_listener_keeps_its_address() {
    let rig = Rig::start(&yaml("")).await;
    let port = second(&free_address().to_string());
    rig.reload(&port).await;
    let old = address(&rig, "second");
    assert_eq!(rig.reload(&port.replace("second", "renamed")).await, ReloadResult::Changed { generation: 3 });
    assert_eq!(address(&rig, "renamed"), old);
    TcpStream::connect(old).unwrap();
}

#[tokio::test]
async fn hundreds_of_reloads_leave_no_descriptor_behind() {
    let rig = Rig::start(&yaml("")).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for n in 0..20 {
        rig.reload(&yaml(&format!("  - {{ name: l{n}, bind: \"127.0.0.1:0\", protocol: http }}\n"))).await;
    }
    let before = descriptors();
    for n in 0..200 {
        rig.reload(&yaml(&format!("  - {{ name: m{n}, bind: \"127.0.0.1:0\", protocol: http }}\n"))).await;
    }
    // Other tests of this process open some, too; a leak would be 400.
    crate::control::testing::until("sockets are closed", || descriptors() < before + 200).await;
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
