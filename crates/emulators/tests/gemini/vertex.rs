//! Keys, Vertex AI, and tokens of a service account.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use holdfast_emulators::families::gemini::{
    Gemini, SERVICE_ACCOUNT_EMAIL, SERVICE_ACCOUNT_PRIVATE_KEY_PEM, service_account_json,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn keys_are_checked() {
    let client = gemini(Gemini::new()).await;
    let path = client.model_path("generateContent");
    let body = question();
    let (status, text) = client
        .send_as(
            ("x-goog-api-key", "invalid-key"),
            Method::POST,
            &path,
            Some(&body),
        )
        .await;
    assert_eq!(status, 400);
    assert!(text.contains("API_KEY_INVALID"));
    let (status, _) = client
        .send_as(("x-other", "alice"), Method::POST, &path, Some(&body))
        .await;
    assert_eq!(status, 403);
    let path = format!("{path}?key=alice");
    let (status, _) = client
        .send_as(("x-other", "alice"), Method::POST, &path, Some(&body))
        .await;
    assert_eq!(status, 200);
    let (_, models) = client.send(Method::GET, "/models", None).await;
    assert!(
        models["models"]
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["name"] == "models/gemini-3.8-flash")
    );
}

#[tokio::test]
async fn vertex_binds_a_cache_to_its_project_and_location() {
    let mut client = vertex(Gemini::vertex("test-token").key("express", "test-project")).await;
    let cache = client.create(json!({})).await;
    let name = cache["name"].as_str().unwrap().to_owned();
    let id = name
        .strip_prefix("projects/test-project/locations/us-central1/cachedContents/")
        .unwrap()
        .to_owned();
    let mut body = question();
    body["cachedContent"] = json!(name);
    let (status, answer) = client.generate(body.clone()).await;
    assert_eq!(status, 200);
    assert_eq!(answer["usageMetadata"]["trafficType"], "ON_DEMAND");
    assert_eq!(client.charges("chat")[0].account, "test-project");

    let path = client.model_path("generateContent");
    let (status, _) = client
        .send_as(
            ("x-goog-api-key", "express"),
            Method::POST,
            &path,
            Some(&body),
        )
        .await;
    assert_eq!(status, 200);
    let (status, _) = client
        .send_as(
            ("x-goog-api-key", "other"),
            Method::POST,
            &path,
            Some(&body),
        )
        .await;
    assert_eq!(status, 400);
    let (status, _) = client
        .send_as(
            ("authorization", "Bearer other"),
            Method::POST,
            &path,
            Some(&body),
        )
        .await;
    assert_eq!(status, 401);

    let gone = "Not found: cached content";
    let patch = json!({"ttl": "60s"});
    for base in [
        "/v1/projects/test-project/locations/europe-west4",
        "/v1/projects/test-project/locations/global",
        "/v1/projects/other/locations/us-central1",
    ] {
        client.base = base;
        assert_error(&client.generate(body.clone()).await, 404, "NOT_FOUND", gone);
        let answer = client
            .send(
                Method::PATCH,
                &format!("/cachedContents/{id}"),
                Some(&patch),
            )
            .await;
        assert_error(&answer, 404, "NOT_FOUND", gone);
        let foreign_model = client.post("/cachedContents", client.cache_body()).await;
        assert_invalid(&foreign_model, "unexpected model name format");
    }
    client.base = VERTEX_BASE;
    body["cachedContent"] = json!(format!("cachedContents/{id}"));
    assert_invalid(
        &client.generate(body.clone()).await,
        "Invalid CachedContent name.",
    );
    body["cachedContent"] = json!(name);
    client.emulator.clock().advance(Duration::from_secs(3601));
    assert_error(&client.generate(body).await, 404, "NOT_FOUND", gone);

    let mut body = client.cache_body();
    body["contents"] = json!([user(&"x".repeat(10 * 1024 * 1024))]);
    assert_invalid(
        &client.post("/cachedContents", body).await,
        "Request payload size exceeds the limit",
    );
    let body = json!({"contents": [{"role": "user", "parts": [{"text": ""}]}]});
    assert_invalid(&client.generate(body).await, "must have a text parameter");
}

/// A JWT with these claims, signed with the service account's key.
fn assertion(claims: &Value) -> String {
    let pem: String = SERVICE_ACCOUNT_PRIVATE_KEY_PEM
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let key =
        RsaKeyPair::from_pkcs8(&data_encoding::BASE64.decode(pem.as_bytes()).unwrap()).unwrap();
    let encode = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let header = json!({"alg": "RS256", "typ": "JWT"});
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", encode(&signature))
}

async fn exchange(client: &Client, assertion: &str) -> (StatusCode, Value) {
    let response = client
        .http
        .post(format!("{}/token", client.emulator.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        ))
        .send()
        .await
        .unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_service_account_exchanges_a_signed_jwt_for_a_token_that_expires() {
    let family = Gemini::vertex("test-token");
    let mut client = vertex(family.clone()).await;
    let account = service_account_json(&format!("{}/token", client.emulator.url));
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "iss": SERVICE_ACCOUNT_EMAIL,
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": account["token_uri"],
        "iat": now,
        "exp": now + 3600,
    });
    let (status, token) = exchange(&client, &assertion(&claims)).await;
    assert_eq!(status, 200, "{token}");
    assert_eq!(
        (&token["token_type"], &token["expires_in"]),
        (&json!("Bearer"), &json!(3599))
    );
    client.header.1 = format!("Bearer {}", token["access_token"].as_str().unwrap());
    assert_eq!(client.generate(question()).await.0, 200);
    client.emulator.clock().advance(Duration::from_secs(3600));
    assert_error(
        &client.generate(question()).await,
        401,
        "UNAUTHENTICATED",
        "invalid authentication credentials",
    );
    // The client's clock hasn't moved: its next assertion is good.
    let (_, token) = exchange(&client, &assertion(&claims)).await;
    client.header.1 = format!("Bearer {}", token["access_token"].as_str().unwrap());
    assert_eq!(client.generate(question()).await.0, 200);
    family.revoke_tokens();
    assert_eq!(client.generate(question()).await.0, 401);

    for (field, value, reason) in [
        ("iss", json!("someone@example.com"), "account not found"),
        ("aud", json!("https://example.com/token"), "audience"),
        ("exp", json!(now + 7200), "short-lived"),
        ("iat", json!(now + 4000), "short-lived"),
        ("exp", json!(now - 4000), "short-lived"),
        ("scope", json!("email"), "scope"),
    ] {
        let mut wrong = claims.clone();
        wrong[field] = value;
        let (status, answer) = exchange(&client, &assertion(&wrong)).await;
        assert_eq!(status, 400);
        let description = answer["error_description"].as_str().unwrap();
        assert!(description.contains(reason), "{description}");
    }
    let (good, mut other) = (assertion(&claims), claims.clone());
    other["iat"] = json!(now - 1);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = assertion(&other);
    let (_, answer) = exchange(
        &client,
        &format!("{signed}.{}", other.rsplit_once('.').unwrap().1),
    )
    .await;
    assert_eq!(answer["error_description"], "Invalid JWT Signature.");
}
