//! Every request has its row, and comes back from what a client writes.

use super::*;
use crate::control::ErrorKind;
use hyper::body::Bytes;
use serde_json::json;
use std::collections::BTreeSet;

/// One request for every row, and more.
fn samples() -> Vec<Request> {
    let nvdimm = NvdimmConfig {
        id: Some("a/b ?%c".to_owned()),
        ..serde_json::from_value(json!({"file": "/x/y", "size": "1G", "flags": ["not-armed"], "serial": 7})).unwrap()
    };
    vec![
        Request::Describe,
        Request::Pause,
        Request::Resume,
        Request::PowerButton,
        Request::Ask(GuestPower::PowerOff),
        Request::Ask(GuestPower::Reboot),
        Request::Reboot,
        Request::Quit,
        Request::Look(LookRequest::State),
        Request::Look(LookRequest::Map),
        Request::Look(LookRequest::Nodes),
        Request::Look(LookRequest::Devices),
        Request::Look(LookRequest::Metrics),
        Request::Look(LookRequest::Events { since: 9 }),
        Request::Look(LookRequest::Console { bytes: 100 }),
        Request::Look(LookRequest::Tables),
        Request::Look(LookRequest::Table {
            signature: "SR/T".into(),
        }),
        Request::Nvdimm(NvdimmRequest::List),
        Request::Nvdimm(NvdimmRequest::Show { id: "a b".into() }),
        Request::Nvdimm(NvdimmRequest::Health { id: "a".into() }),
        Request::Nvdimm(NvdimmRequest::Add(Box::new(nvdimm))),
        Request::Nvdimm(NvdimmRequest::Lock {
            id: "../..%2f é".into(),
        }),
        Request::Nvdimm(NvdimmRequest::Errors { id: None }),
        Request::Nvdimm(NvdimmRequest::Errors { id: Some("a".into()) }),
        Request::Nvdimm(NvdimmRequest::Inject {
            range: serde_json::from_value(json!({"id": "a", "start": 4096, "len": 64})).unwrap(),
            latent: true,
        }),
        Request::Nvdimm(NvdimmRequest::Clear {
            range: serde_json::from_value(json!({"start": 4096, "len": 64})).unwrap(),
        }),
        Request::Memory(MemoryRequest::List),
        Request::Memory(MemoryRequest::Add(Box::new(
            serde_json::from_value(json!({"size": "1G", "node": 2, "id": "m"})).unwrap(),
        ))),
        Request::Memory(MemoryRequest::Remove {
            id: "m".into(),
            deadline: None,
        }),
        Request::Memory(MemoryRequest::Remove {
            id: "m".into(),
            deadline: Some(5),
        }),
        Request::Memory(MemoryRequest::Target {
            id: "grow".into(),
            size: serde_json::from_value(json!("1G")).unwrap(),
        }),
        Request::Dax(DaxRequest::Add(Box::new(
            serde_json::from_value(json!({"file": "/dev/dax0.0", "as": "soft-reserved", "size": "1G"})).unwrap(),
        ))),
        Request::Disk(DiskRequest::List),
        Request::Disk(DiskRequest::AddFault {
            id: "d".into(),
            fault: serde_json::from_value(json!({"op": "read", "sectors": "1-2", "latency": "2s"})).unwrap(),
        }),
        Request::Disk(DiskRequest::RemoveFault {
            id: "d".into(),
            number: None,
        }),
        Request::Disk(DiskRequest::RemoveFault {
            id: "d".into(),
            number: Some(3),
        }),
        Request::Disk(DiskRequest::Throttle {
            id: "d".into(),
            throttle: serde_json::from_value(json!({"iops": 10})).unwrap(),
        }),
        Request::Limits(LimitsRequest::Get),
        Request::Fault(FaultRequest::List),
        Request::Fault(FaultRequest::Inject(Box::new(
            serde_json::from_value(json!({"gpa": 64, "len": 128, "known": true})).unwrap(),
        ))),
        Request::Fault(FaultRequest::Inject(Box::new(
            serde_json::from_value(json!({"node": 1, "count": 9, "seed": 7, "dry-run": true})).unwrap(),
        ))),
        Request::Fault(FaultRequest::Notify(Box::new(
            serde_json::from_value(json!({"gpa": 128, "severity": "corrected", "threshold-exceeded": true})).unwrap(),
        ))),
        Request::Fault(FaultRequest::Clear(
            serde_json::from_value(json!({"nvdimm": "a", "dpa": 4096})).unwrap(),
        )),
        Request::Fault(FaultRequest::Stop { storm: 3 }),
        Request::Fault(FaultRequest::Remove { id: "a b@0x40".into() }),
        Request::Limits(LimitsRequest::Set(
            serde_json::from_value(json!({"target": "1G"})).unwrap(),
        )),
        Request::Operation(OperationRequest::List),
        Request::Operation(OperationRequest::Show { id: 7, wait: 0 }),
        Request::Operation(OperationRequest::Show { id: 7, wait: 60 }),
    ]
}

/// The row that `written` reaches, and what it would ask.
fn reached(written: &Written) -> (&'static str, Request) {
    let (path, query) = written.path.split_once('?').unwrap_or((&written.path, ""));
    let words: Vec<_> = path.split('/').collect();
    let mut hits = ROUTES.iter().filter_map(|route| {
        let pattern: Vec<_> = route.path.split('/').collect();
        let mut params = vec![];
        let fits = pattern.len() == words.len()
            && pattern.iter().zip(&words).all(|(p, w)| match p.strip_prefix('{') {
                Some(name) => {
                    let value = percent_encoding::percent_decode_str(w).decode_utf8().unwrap();
                    params.push((name.trim_end_matches('}').to_owned(), value.into_owned()));
                    true
                }
                None => p == w,
            });
        (fits && route.method == written.method).then_some((route, params))
    });
    let (route, params) = hits.next_back().expect("a route");
    let query = query.split('&').filter(|pair| !pair.is_empty());
    let input = Input {
        params,
        query: query
            .map(|p| p.split_once('=').unwrap())
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
        body: written
            .body
            .as_ref()
            .map_or_else(Bytes::new, |body| body.to_string().into()),
    };
    input.check(route).unwrap();
    let Does::Ask(ask) = route.does else {
        panic!("{} asks nothing", route.id)
    };
    (route.id, ask(&input).unwrap())
}

#[test]
fn what_clients_write_is_what_routes_read_and_every_route_is_reached() {
    let mut seen = BTreeSet::new();
    for request in samples() {
        let (id, read) = reached(&written(&request));
        assert_eq!(read, request, "{id}");
        seen.insert(id);
    }
    let asking = ROUTES.iter().filter(|r| matches!(r.does, Does::Ask(_)));
    let missing: Vec<_> = asking.map(|r| r.id).filter(|id| !seen.contains(id)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

fn body(text: &str) -> ControlError {
    let input = Input {
        body: Bytes::copy_from_slice(text.as_bytes()),
        ..Input::default()
    };
    input.json::<NvdimmConfig>().unwrap_err()
}

#[test]
fn wrong_bodies_name_their_field() {
    for (text, field) in [
        (r#"{"sise": 1}"#, "sise"),
        (r#"{"size": -1}"#, "size"),
        (r#"{"size": []}"#, "size"),
        (r#"{"flags": ["not-armed", "flying"]}"#, "flags[1]"),
        (r#"{"node": 4294967296}"#, "node"),
        ("[]", "body"),
        ("7", "body"),
    ] {
        let error = body(text);
        assert_eq!(error.kind, ErrorKind::InvalidRequest, "{text}: {error}");
        assert_eq!(error.field.as_deref(), Some(field), "{text}: {error}");
    }
    for text in ["", "{", "{} {}", "nul", "{\"size\": 1"] {
        assert_eq!(body(text).kind, ErrorKind::Malformed, "{text}");
    }
    let deep = format!("{{\"id\":{}", "[".repeat(100_000));
    assert!(body(&deep).detail.len() < 400);
    let long = format!("{{\"{}\": 1}}", "é".repeat(10_000));
    let error = body(&long);
    assert!(error.detail.len() <= 320 && error.field.unwrap().len() <= 300);
}

#[test]
fn parameters_that_no_route_knows_are_refused() {
    let route = ROUTES.iter().find(|r| r.id == "showOperation").unwrap();
    let check = |query: &[(&str, &str)]| {
        let query = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let params = vec![("id".to_owned(), "1".to_owned())];
        let input = Input {
            query: query.collect(),
            params,
            body: Bytes::new(),
        };
        input.check(route).map_err(|e| e.field.unwrap().into_owned())
    };
    check(&[("wait", "60")]).unwrap();
    for (query, field) in [
        (&[("wait", "61")][..], "wait"),
        (&[("wait", "-1")], "wait"),
        (&[("wait", "")], "wait"),
        (&[("wait", "+1")], "wait"),
        (&[("wait", "99999999999999999999")], "wait"),
        (&[("wait", "1"), ("wait", "2")], "wait"),
        (&[("id", "2")], "id"),
        (&[("x", "")], "x"),
    ] {
        assert_eq!(check(query), Err(field.to_owned()), "{query:?}");
    }
}
