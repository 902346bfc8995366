//! The HTTP side of the model.

use std::{
    convert::Infallible,
    fmt::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
    thread,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime, sync::oneshot};

use super::{NAME, Reply, Script};

/// A thread that answers requests until the value goes away.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(script: Arc<Script>) -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of our own");
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, script) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: StdListener, script: Arc<Script>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let script = Arc::clone(&script);
        let answer = service_fn(move |request| answer(Arc::clone(&script), request));
        // An agent that goes away in the middle of an answer is no fault of ours.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

async fn answer(
    script: Arc<Script>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() != Method::POST {
        return Ok(whole(StatusCode::OK, &catalogue(&path)));
    }
    let Ok(body) = request.into_body().collect().await else {
        return Ok(whole(StatusCode::BAD_REQUEST, &json!({})));
    };
    let Ok(body) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return Ok(whole(StatusCode::BAD_REQUEST, &json!({})));
    };
    if path.ends_with("/count_tokens") || path.ends_with(":countTokens") {
        let count = json!({"input_tokens": 1, "totalTokens": 1});
        return Ok(whole(StatusCode::OK, &count));
    }
    Ok(match script.answer(&path, &body) {
        Some(Reply::Whole(reply)) => whole(StatusCode::OK, &reply),
        Some(Reply::Events(events)) => stream(&events),
        // Telemetry and the like.
        None => whole(StatusCode::OK, &json!({})),
    })
}

/// What a `GET` finds: the list of models, else nothing.
fn catalogue(path: &str) -> Value {
    if path.ends_with("/models") {
        json!({"object": "list", "models": [], "data": [{"id": NAME, "object": "model", "type": "model"}]})
    } else {
        json!({})
    }
}

fn whole(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    response(status, "application/json", value.to_string())
}

fn stream(events: &[(Option<String>, String)]) -> Response<Full<Bytes>> {
    let mut text = String::new();
    for (name, data) in events {
        if let Some(name) = name {
            let _ = writeln!(text, "event: {name}");
        }
        let _ = write!(text, "data: {data}\n\n");
    }
    response(StatusCode::OK, "text/event-stream", text)
}

fn response(status: StatusCode, kind: &str, text: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .body(Full::new(Bytes::from(text)))
        .unwrap()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::super::{Model, Step};

    fn request(model: &Model, text: &str) -> String {
        let mut stream = TcpStream::connect(model.address()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn requests_are_answered_and_kept() {
        let model = Model::start([Step::shell("id"), Step::say("bye")]);
        let post = |body: &str| {
            let text = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            request(&model, &text)
        };
        let tools =
            r#""tools":[{"function":{"name":"bash","parameters":{"properties":{"command":{}}}}}]"#;
        let reply = post(&format!(r#"{{"stream":true,"messages":[],{tools}}}"#));
        assert!(
            reply.starts_with("HTTP/1.1 200") && reply.contains("text/event-stream"),
            "{reply}"
        );
        assert!(
            reply.contains(r#"{\"command\":\"id\"}"#) && reply.ends_with("data: [DONE]\n\n"),
            "{reply}"
        );
        let reply = post(&format!(
            r#"{{"messages":[{{"role":"assistant","tool_calls":[{{}}]}},{{"role":"tool","content":"uid=0"}}],{tools}}}"#
        ));
        assert!(reply.contains("bye"), "{reply}");
        assert_eq!(model.told(), ["uid=0"]);
        assert_eq!(model.turns(), 1);
        assert!(post("{").starts_with("HTTP/1.1 400"));
        let models = request(
            &model,
            "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        );
        assert!(models.contains(super::NAME), "{models}");
    }
}
