//! Whom the application lets in, and what it learns of them.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use wireloom::{Client, Identity, RemoteAddr};
use wireloom_messaging::server::{Admission, Connection, ConnectionOptions, Handlers, Refusal, Server};
use wireloom_messaging::transport::websocket::{self, HandshakeError};
use wireloom_messaging::transport::webtransport::{self, Profile};

use crate::behaviours::{TellDrop, echo};
use crate::mounted::{peer, tls_connect};
use crate::peer::within;

/// As a middleware has found it.
#[derive(Clone)]
struct User(&'static str);

struct Greeting(String);

/// Asks somebody else, and answers what it learnt.
async fn admit(admission: Admission) -> Result<ConnectionOptions, Refusal> {
    tokio::task::yield_now().await;
    let user = admission.extensions.get().map_or("nobody", |User(name)| name);
    let token = admission.query().and_then(|query| query.strip_prefix("token="));
    let token = token.ok_or_else(|| Refusal::new(http::StatusCode::UNAUTHORIZED, "no token"))?;
    let greeting = Greeting(format!("{user} with {token}"));
    Ok(ConnectionOptions::default()
        .value(Greeting(String::new()))
        .value(greeting))
}

fn handlers() -> Handlers {
    let greeting = async |connection: Connection| {
        let greeting = connection.get::<Greeting>().expect("admitted with it");
        let (path, query) = (connection.path().unwrap(), connection.query().unwrap());
        format!("{} at {path}?{query}", greeting.0)
    };
    echo().admit(admit).on_request("greeting", greeting)
}

async fn refused_with(address: std::net::SocketAddr, path: &'static str) -> u16 {
    let stream = TcpStream::connect(address).await.unwrap();
    match websocket::connect(stream, format!("ws://{address}{path}"), 8192).await {
        Err(HandshakeError::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_admission_learns_reaches_handlers() {
    let server = Server::builder().build(handlers());
    let find_user = async |mut request: Request, next: Next| {
        assert!(request.extensions().get::<RemoteAddr>().is_some());
        request.extensions_mut().insert(User("ann"));
        next.run(request).await
    };
    let app = Router::new()
        .route_service("/chat", server.service())
        .layer(from_fn(find_user));
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let http = wireloom::Server::builder().bind("127.0.0.1:0").identity(identity);
    let http = http.listen().await.unwrap();
    let address = http.local_addrs()[0];
    tokio::spawn(async move { http.serve(app).await });

    let client = Client::builder().server_certificate_hash(hash).build().unwrap();
    let session = client
        .connect(&format!("https://{address}/chat?token=1"))
        .await
        .unwrap();
    let mut quic = peer(webtransport::connect(session, Profile::Single, 8192).await.unwrap()).await;
    quic.text(1, "greeting", "x").await;
    quic.expect_text(1, "ann with 1 at /chat?token=1").await;
    let error = client.connect(&format!("https://{address}/chat")).await.unwrap_err();
    assert!(
        matches!(&error, wireloom::ConnectError::Rejected(response) if response.status() == 401),
        "{error}"
    );

    let tls = tls_connect(address, hash).await;
    let url = format!("wss://{address}/chat?token=2");
    let mut tcp = peer(websocket::connect(tls, url, 8192).await.unwrap()).await;
    tcp.text(1, "greeting", "x").await;
    tcp.expect_text(1, "ann with 2 at /chat?token=2").await;
}

#[tokio::test]
async fn without_a_router() {
    let server = Server::builder().build(handlers());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listening = server.clone();
    tokio::spawn(async move { listening.listen(listener).await });
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/any?token=3");
    let mut client = peer(websocket::connect(stream, url, 8192).await.unwrap()).await;
    client.text(1, "greeting", "x").await;
    client.expect_text(1, "nobody with 3 at /any?token=3").await;
    assert_eq!(refused_with(address, "/any").await, 401);
    let memory = server.connect_memory();
    let mut memory = peer(memory).await;
    memory.ping().await;
    let within_process = server
        .connections()
        .into_iter()
        .find(|connection| connection.path().is_none());
    assert!(within_process.unwrap().get::<Greeting>().is_none(), "nobody is asked");
}

/// In a router and without one.
async fn listeners(server: &Server) -> [std::net::SocketAddr; 2] {
    let (bare, mounted) = (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
    let (bare, mounted) = (bare.await.unwrap(), mounted.await.unwrap());
    let addresses = [bare.local_addr().unwrap(), mounted.local_addr().unwrap()];
    let app = Router::new().route_service("/chat", server.service());
    tokio::spawn(async move { axum::serve(mounted, app).await });
    let server = server.clone();
    tokio::spawn(async move { server.listen(bare).await });
    addresses
}

#[tokio::test]
async fn admission_that_fails_refuses() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().admit(move |admission: Admission| {
        let held = TellDrop(tell.clone());
        async move {
            let _held = held;
            assert_ne!(admission.query(), Some("panic"), "as the test wants it");
            std::future::pending().await
        }
    });
    let server = Server::builder()
        .connect_timeout(std::time::Duration::from_millis(50))
        .max_connections(1, 1)
        .build(handlers);
    for address in listeners(&server).await {
        for (path, status) in [("/chat?panic", 500), ("/chat", 503)] {
            assert_eq!(within(refused_with(address, path)).await, status, "{path}");
            assert_eq!(within(told.recv()).await, Some("dropped"));
        }
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_admission() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().admit(move |_| {
        tell.send(()).unwrap();
        std::future::pending()
    });
    let server = Server::builder().build(handlers);
    let refused = listeners(&server)
        .await
        .map(|address| tokio::spawn(refused_with(address, "/chat")));
    for _ in &refused {
        within(told.recv()).await.unwrap();
    }
    within(server.shut_down()).await;
    for refused in refused {
        assert_eq!(within(refused).await.unwrap(), 503);
    }
}

/// Where the server beneath does not ask.
#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let server = Server::builder().allow_origin("https://app.example.com").build(echo());
    for address in listeners(&server).await {
        let connect = async |origin: &str| {
            let mut request = format!("ws://{address}/chat").into_client_request().unwrap();
            request.headers_mut().insert("origin", origin.parse().unwrap());
            let stream = TcpStream::connect(address).await.unwrap();
            websocket::connect(stream, request, 8192).await
        };
        for own in ["https://app.example.com", &format!("http://{address}")] {
            peer(connect(own).await.unwrap()).await.ping().await;
        }
        let foreign = connect("https://example.com").await;
        assert!(matches!(foreign, Err(HandshakeError::Http(response)) if response.status() == 403));
    }
}
