use frp_gateway_config::model::ProxyHeader;
use proptest::prelude::*;
use tokio::{io::AsyncWriteExt, net::TcpListener, runtime::Builder};

use super::*;
use crate::data::l4::proxy_header::encode;

/// What `take` makes of these segments, and what it leaves in the stream.
fn taken(segments: &[&[u8]]) -> (Result<Told, NoHeader>, Vec<u8>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        sender.set_nodelay(true).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let send = async {
            let mut sender = sender;
            for segment in segments {
                // The reader may have had enough.
                if sender.write_all(segment).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(sender.shutdown().await);
            sender
        };
        let read = async {
            let told = take(&mut stream).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            (told, rest)
        };
        tokio::join!(read, send).0
    })
}

fn address(v6: bool, number: u32, port: u16) -> SocketAddr {
    let ip = if v6 {
        IpAddr::from(u128::from(number).to_be_bytes().map(|byte| byte | 0x20))
    } else {
        IpAddr::from(number.to_be_bytes())
    };
    SocketAddr::new(ip, port)
}

#[test]
fn a_peer_that_says_nothing_is_no_error_and_one_that_stops_midway_is() {
    assert_eq!(taken(&[]).0, Err(NoHeader::Nothing));
    for begun in [&b"P"[..], b"PROXY TCP4 1.2.3.4", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c1234"] {
        assert_eq!(taken(&[begun]).0, Err(NoHeader::Bad(CUT)), "{}", begun.escape_ascii());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn not_a_byte_of_what_follows_is_taken_however_the_segments_fall(
        v2: bool,
        v6: bool,
        numbers: (u32, u32),
        ports: (u16, u16),
        payload in prop::collection::vec(any::<u8>(), 0..600),
        cuts in prop::collection::vec(0..700_usize, 0..6),
    ) {
        let (from, to) = (address(v6, numbers.0, ports.0), address(v6, numbers.1, ports.1));
        let mut all = Vec::new();
        encode(if v2 { ProxyHeader::V2 } else { ProxyHeader::V1 }, from, to, &mut all);
        all.extend_from_slice(&payload);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % (all.len() + 1)).collect();
        cuts.sort_unstable();
        let mut segments = Vec::new();
        let mut at = 0;
        for cut in cuts.into_iter().chain([all.len()]) {
            segments.push(&all[at..cut]);
            at = cut;
        }
        let (told, rest) = taken(&segments);
        prop_assert_eq!(told, Ok(Some((from, to))));
        prop_assert_eq!(rest, payload);
    }

    #[test]
    fn garbage_ends_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0..3_u8, cut in 0..64_usize) {
        let begin: &[u8] = match kind { 0 => b"", 1 => b"PROXY TCP4 ", _ => b"\r\n\r\n\0\r\nQUIT\n" };
        let all = [begin, &bytes].concat();
        let (one, two) = all.split_at(cut.min(all.len()));
        // Whatever it is, it is told; a header may be among it.
        let (told, rest) = taken(&[one, two]);
        if told.is_err() && kind == 0 && !all.is_empty() && !b"PROXY \r".contains(&all[0]) {
            prop_assert_eq!(rest, all, "nothing is taken of what is no header");
        }
    }
}
