//! TLS: an authority of the operator's own is trusted, a stranger's is not. The certificates in `tls/` are made for this test
//! and good for nothing else.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use super::super::transport::{Broken, Http};

const CERTIFICATE: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/server.key");

/// A server that answers one connection; its port.
fn server() -> u16 {
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        // A client that trusts nobody here ends the handshake.
        if stream.read(&mut [0; 4096]).is_ok() {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").unwrap();
        }
    });
    port
}

async fn ask(http: &Http, host: &str) -> Result<Bytes, Broken> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = format!("https://{host}:{}/", server()).parse().unwrap();
    http.exchange(request, Duration::from_secs(20)).await.map(|reply| reply.body)
}

#[tokio::test]
async fn only_known_authorities_are_trusted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/aci/arm/tests/tls/root.pem");
    let knowing = Http::trusting(Some(&root));
    assert_eq!(ask(&knowing, "localhost").await, Ok(Bytes::from_static(b"ok")));
    // It is for one name.
    let Err(Broken::Unconnected(why)) = ask(&knowing, "127.0.0.1").await else { panic!("the name was not compared") };
    assert!(why.contains("certificate"), "{why}");
    for stranger in [Http::trusting(None), Http::trusting(Some(Path::new("/nowhere/at/all")))] {
        let Err(Broken::Unconnected(why)) = ask(&stranger, "localhost").await else { panic!("a stranger was trusted") };
        assert!(why.contains("certificate"), "{why}");
    }
}
