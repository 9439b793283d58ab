//! The OpenAPI 3.1 document, made of the table of routes and the types they name.

use super::{
    BASE,
    routes::{Does, Noun, Parameter, ROUTES, Route, Values},
};
use crate::control::Problem;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use utoipa::{PartialSchema, ToSchema};

/// The document as text, as docs/openapi.json has it.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document()));
    &TEXT
}

fn document() -> Value {
    let mut schemas = vec![("Problem".to_owned(), Problem::schema())];
    Problem::schemas(&mut schemas);
    let mut paths = Map::new();
    for route in ROUTES {
        for noun in [&route.body, &route.answer].into_iter().flatten() {
            (noun.collect)(&mut schemas);
        }
        let path = paths
            .entry(format!("{BASE}{}", route.path))
            .or_insert_with(|| json!({}));
        path[route.method.name().to_ascii_lowercase()] = operation(route);
    }
    // The same type is met in many places, and is the same in each.
    let schemas: Map<_, _> = schemas
        .into_iter()
        .map(|(name, schema)| (name, json!(schema)))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "daxvisor",
            "description": "A running virtual machine, over the unix socket of --api-socket.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0 OR BSD-3-Clause", "identifier": "Apache-2.0 OR BSD-3-Clause" },
        },
        "servers": [{ "url": "http://localhost" }],
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(route: &Route) -> Value {
    let mut done = json!({ "description": "Done." });
    if route.accepted {
        done["description"] = json!("Begun; the operation says how far it is.");
        let place = json!({ "description": "Path of the operation.", "schema": { "type": "string" } });
        done["headers"] = json!({ "location": place });
    }
    let schema = route
        .answer
        .as_ref()
        .map_or_else(|| json!({ "type": "object" }), reference);
    done["content"] = match route.does {
        // The stream is text; each `data` in it is one of these.
        Does::Stream => json!({ "text/event-stream": { "schema": { "type": "string", "contentSchema": schema } } }),
        Does::Ask(_) | Does::Document => json!({ "application/json": { "schema": schema } }),
    };
    let problem = json!({
        "description": "Not done; nothing has changed.",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let status = if route.accepted { "202" } else { "200" };
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.about,
        "responses": { status: done, "default": problem },
    });
    if !route.parameters.is_empty() {
        operation["parameters"] = route.parameters.iter().map(|p| parameter(route, p)).collect();
    }
    if let Some(body) = &route.body {
        let content = json!({ "application/json": { "schema": reference(body) } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn parameter(route: &Route, parameter: &Parameter) -> Value {
    let in_path = route.path.contains(&format!("{{{}}}", parameter.name));
    let schema = match parameter.values {
        Values::Text => json!({ "type": "string", "minLength": 1 }),
        Values::UpTo(most) => json!({ "type": "integer", "minimum": 0, "maximum": most }),
    };
    json!({
        "name": parameter.name,
        "in": if in_path { "path" } else { "query" },
        "required": in_path,
        "description": parameter.about,
        "schema": schema,
    })
}

fn reference(noun: &Noun) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", (noun.name)()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_document_is_the_one_that_the_code_makes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        if std::env::var_os("DAXVISOR_BLESS").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == text(),
            "docs/openapi.json is stale; hint: run `cargo xtask bless`"
        );
    }

    #[test]
    fn document_is_openapi_and_every_reference_leads_somewhere() {
        let document = document();
        let parsed: utoipa::openapi::OpenApi = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(parsed.paths.paths.len(), document["paths"].as_object().unwrap().len());
        let text = document.to_string();
        let mut found = 0;
        for name in text.split("#/components/schemas/").skip(1) {
            let name = name.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "no schema {name}");
            found += 1;
        }
        assert!(found > 20, "{found}");
    }
}
