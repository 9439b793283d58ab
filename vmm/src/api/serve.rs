//! Clients of the API: who may connect, and what bounds them.
//!
//! At most [`MAX_CLIENTS`] are served. Each has one request at a time, whose head, body and answer have limits of size
//! and time. A client that does not read its answer for [`STALL`] is let go of; nobody waits for it.

use super::{
    BASE, openapi,
    patience::Patient,
    routes::{self, Does, Input, Method, Route},
    stream::Source,
};
use crate::{
    control::{Answer, ControlError, ErrorKind, Response as Content},
    machine::{
        control::Control,
        socket::{Socket, is_own_user},
    },
};
use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::Response,
    routing::{MethodFilter, on},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Clients at a time; one more is told so and turned away.
pub const MAX_CLIENTS: usize = 64;
/// Clients that are being turned away at a time; one more just finds a closed connection.
const MAX_REFUSED: usize = 64;
/// Longest body of a request in bytes.
pub(super) const MAX_BODY: usize = 1 << 20;
/// Longest head of a request in bytes; hyper takes no less.
const MAX_HEAD: usize = 16 << 10;
/// For the head of a request; also how long a connection may be idle.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// For the body of a request.
const BODY_LIMIT: Duration = Duration::from_secs(20);
/// For the machine's answer. It gives one much sooner, unless a host file system hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// How long a client may leave an answer untouched.
const STALL: Duration = Duration::from_secs(30);
/// For last answers to reach their clients once the machine has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For somebody who is turned away to say what he wants, so that the answer is read.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// Serves until told to stop.
pub(super) async fn serve(socket: &Socket, control: Control, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener()?)?;
    let source = Source::new(control.events().clone(), stop.clone());
    let router = router(&control, &source);
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSED));
    let mut clients = JoinSet::new();
    let stopped = stop.clone();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = clients.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                // No descriptor is free: the client waits in the queue meanwhile.
                tracing::warn!("an API client cannot be taken in: {e}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let refused = match places.clone().try_acquire_owned() {
            _ if !is_own_user(&stream) => not_permitted(),
            Err(_) => too_many(),
            Ok(place) => {
                let (router, stop) = (router.clone(), stopped.clone());
                clients.spawn(async move {
                    client(stream, router, stop).await;
                    drop(place);
                });
                continue;
            }
        };
        if let Ok(place) = refusals.clone().try_acquire_owned() {
            clients.spawn(async move {
                let _ = timeout(REFUSAL_LIMIT, turn_away(stream, refused)).await;
                drop(place);
            });
        }
    }
    let ended = async { while clients.join_next().await.is_some() {} };
    let _ = timeout(LAST_WORDS, ended).await;
    Ok(())
}

fn not_permitted() -> ControlError {
    ControlError::new(
        ErrorKind::NotPermitted,
        "the machine belongs to another user; only that user and root may control it",
    )
}

fn too_many() -> ControlError {
    ControlError::new(ErrorKind::Busy, format!("{MAX_CLIENTS} clients are connected already"))
        .hint("close one of them, or try again later")
}

/// A whole HTTP response that turns a client away before it has said anything.
pub fn refusal(error: &ControlError) -> Vec<u8> {
    let body = serde_json::to_string(error).unwrap_or_default();
    let status = error.kind.status();
    let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    let (reason, length) = (reason.unwrap_or_default(), body.len());
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

async fn turn_away(mut stream: UnixStream, error: ControlError) {
    // A connection that is closed with something unread is an error to its other end, which then may not look for our answer.
    let _ = stream.read(&mut [0; 4096]).await;
    let _ = stream.write_all(&refusal(&error)).await;
}

async fn client(stream: UnixStream, router: Router, mut stop: watch::Receiver<bool>) {
    let io = TokioIo::new(Patient::new(stream, STALL));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD)
        .half_close(true)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("an API client is gone: {e}");
    }
}

fn router(control: &Control, source: &Source) -> Router {
    let mut router = Router::new();
    for route in routes::ROUTES {
        let (control, source) = (control.clone(), source.clone());
        let handler = move |request: Request| {
            let (control, source) = (control.clone(), source.clone());
            async move {
                let done = handle(route, control, source, request).await;
                done.unwrap_or_else(|e| problem(&e))
            }
        };
        let filter = match route.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        router = router.route(&format!("{BASE}{}", route.path), on(filter, handler));
    }
    router.fallback(no_route).method_not_allowed_fallback(no_method)
}

async fn no_route(request: Request) -> Response {
    let why = format!("there is no route {}", short(request.uri().path()));
    problem(&ControlError::new(ErrorKind::NoRoute, why).hint(format!("{BASE}/openapi.json lists what there is")))
}

async fn no_method(request: Request) -> Response {
    let (method, path) = (short(request.method().as_str()).to_owned(), short(request.uri().path()));
    let why = format!("{path} has no method {method}");
    problem(&ControlError::new(ErrorKind::NoMethod, why).hint(format!("{BASE}/openapi.json lists what there is")))
}

async fn handle(
    route: &'static Route,
    control: Control,
    source: Source,
    request: Request,
) -> Result<Response, ControlError> {
    let (mut parts, body) = request.into_parts();
    let input = read(route, &mut parts, body).await?;
    match route.does {
        Does::Stream => {
            // What an `EventSource` that connects again has seen; a parameter counts more.
            let seen = parts
                .headers
                .get("last-event-id")
                .and_then(|id| id.to_str().ok()?.parse().ok());
            let since = input.given("since")?.or(seen).unwrap_or_else(|| source.last());
            let mut response = Response::new(source.body(since));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            Ok(response)
        }
        Does::Document => Ok(json(StatusCode::OK, openapi::text().to_owned())),
        Does::Ask(ask) => {
            let answer = call(&control, ask(&input)?).await?;
            let accepted = match &answer {
                Content::Operation(operation) if route.accepted => Some(operation.id),
                _ => None,
            };
            let text = serde_json::to_string(&answer);
            let text = text.map_err(|e| ControlError::new(ErrorKind::Internal, e.to_string()))?;
            let Some(id) = accepted else {
                return Ok(json(StatusCode::OK, text));
            };
            let mut response = json(StatusCode::ACCEPTED, text);
            if let Ok(place) = HeaderValue::from_str(&format!("{BASE}/operations/{id}")) {
                response.headers_mut().insert(header::LOCATION, place);
            }
            Ok(response)
        }
    }
}

/// Asks the machine's loop.
async fn call(control: &Control, request: crate::control::Request) -> Answer {
    let (told, hear) = oneshot::channel();
    control.call(request, move |answer| drop(told.send(answer)));
    match timeout(ANSWER_LIMIT, hear).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(ControlError::new(ErrorKind::Ending, "the machine ended meanwhile")),
        Err(_) => {
            let why = format!("the machine has not answered within {} s", ANSWER_LIMIT.as_secs());
            Err(ControlError::new(ErrorKind::Deadline, why).hint("the request may still be carried out"))
        }
    }
}

/// What the client has said, as far as it is bytes and names.
async fn read(route: &Route, parts: &mut Parts, body: Body) -> Result<Input, ControlError> {
    let malformed = |why: String| ControlError::new(ErrorKind::Malformed, why);
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let params = params.map_err(|e| malformed(format!("the path cannot be read: {}", short(&e.body_text()))))?;
    let params = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let query = query.map_err(|e| malformed(format!("the query cannot be read: {}", short(&e.body_text()))))?;
    let input = Input {
        params: params.collect(),
        query: query.0,
        body: read_body(body).await?,
    };
    let kind = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_json = kind.is_some_and(|kind| {
        let essence = kind.split(|b| *b == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(JSON.as_bytes())
    });
    if route.body.is_some() && !is_json {
        let said = kind.map_or_else(
            || "nothing".to_owned(),
            |kind| short(&String::from_utf8_lossy(kind)).to_owned(),
        );
        let why = format!("the content type is '{said}'; a body of {JSON} is expected");
        return Err(malformed(why)
            .field("content-type")
            .hint(format!("send `content-type: {JSON}`")));
    }
    input.check(route)?;
    Ok(input)
}

async fn read_body(body: Body) -> Result<Bytes, ControlError> {
    match timeout(BODY_LIMIT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(ControlError::new(
            ErrorKind::TooLong,
            format!("the body is longer than {MAX_BODY} bytes"),
        )),
        Ok(Err(e)) => Err(ControlError::new(
            ErrorKind::Malformed,
            format!("the body cannot be read: {}", short(&e.to_string())),
        )),
        Err(_) => Err(ControlError::new(
            ErrorKind::TooSlow,
            format!("the body has not come within {} s", BODY_LIMIT.as_secs()),
        )),
    }
}

fn json(status: StatusCode, text: String) -> Response {
    with_type(status, JSON, text)
}

fn problem(error: &ControlError) -> Response {
    let status = StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = with_type(status, PROBLEM, serde_json::to_string(error).unwrap_or_default());
    if error.kind == ErrorKind::Busy {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn with_type(status: StatusCode, kind: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A hostile value is not repeated at any length.
pub(super) fn short(text: &str) -> &str {
    const MOST: usize = 300;
    let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}
