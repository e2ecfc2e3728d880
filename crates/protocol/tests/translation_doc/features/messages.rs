//! What messages can say.

use holdfast_protocol::chat::{ContentPart, Message, Role};

use super::Feature;
use super::build::{
    answered, call, called, data_url, file, filed, https_url, image, insert, part, set, text,
};
use crate::{PROBE, PROBE_BASE64};

/// Whose they are, and what is said in them.
pub(super) const MESSAGES: &[Feature] = &[
    Feature::new("`system`, first", "messages.content", |request, _| {
        insert(request, 0, Message::text(Role::System, PROBE))
    })
    .placed(),
    Feature::new("`developer`, first", "messages.content", |request, _| {
        insert(request, 0, Message::text(Role::Developer, PROBE))
    })
    .placed(),
    Feature::new("`system`, later", "messages.content", |request, _| {
        insert(request, 1, Message::text(Role::System, PROBE))
    })
    .placed(),
    Feature::new("`developer`, later", "messages.content", |request, _| {
        insert(request, 1, Message::text(Role::Developer, PROBE))
    })
    .placed(),
    Feature::new("`user`", "messages.content", |request, _| {
        insert(request, 1, Message::text(Role::User, PROBE))
    })
    .placed(),
    Feature::new("`assistant`", "messages.content", |request, _| {
        insert(request, 0, Message::text(Role::Assistant, PROBE));
        insert(request, 0, Message::text(Role::User, "One?"))
    })
    .placed(),
    Feature::new("a text of white space", "messages.content", |request, _| {
        request.messages[0].content[1] = text("   ");
        true
    })
    .on(|request| {
        part(request, 0, text("Well?"));
    }),
    Feature::new("`name`", "messages.name", |request, _| {
        set(&mut request.messages[0].name, PROBE.to_owned())
    }),
    Feature::new(
        "`refusal` of an earlier answer",
        "messages.refusal",
        |request, _| {
            let answer = &mut request.messages[1];
            answer.content.clear();
            set(&mut answer.refusal, PROBE.to_owned())
        },
    )
    .on(answered)
    .placed(),
    Feature::new(
        "a tool call's id",
        "messages.tool_calls.id",
        |request, _| {
            call(request).id.push_str(PROBE);
            set(
                &mut request.messages[2].tool_call_id,
                format!("call_1{PROBE}"),
            )
        },
    )
    .on(called),
    Feature::new(
        "a tool call's name",
        "messages.tool_calls.function.name",
        |request, _| {
            call(request).name.push_str(PROBE);
            true
        },
    )
    .on(called),
    Feature::new(
        "a tool call's arguments",
        "messages.tool_calls.function.arguments",
        |request, _| {
            call(request).arguments = format!("{{\"a\":\"{PROBE}\"}}");
            true
        },
    )
    .on(called),
    Feature::new(
        "arguments that are no JSON object",
        "messages.tool_calls.function.arguments",
        |request, _| {
            call(request).arguments = PROBE.to_owned();
            true
        },
    )
    .on(called),
    Feature::new("a tool's result", "messages.content", |request, _| {
        request.messages[2].content = vec![text(PROBE)];
        true
    })
    .on(called)
    .placed(),
];

/// Images and files in them.
pub(super) const MEDIA: &[Feature] = &[
    Feature::new(
        "an image as a `data:` URL",
        "messages.content",
        |request, _| part(request, 0, image(&data_url("image/png"))),
    ),
    Feature::new(
        "an image as an `https:` URL",
        "messages.content",
        |request, _| part(request, 0, image(&https_url("png"))),
    ),
    Feature::new("an image's `detail`", "messages.content", |request, _| {
        let Some(ContentPart::ImageUrl { detail, .. }) = request.messages[0].content.last_mut()
        else {
            return false;
        };
        set(detail, "high".to_owned())
    })
    .on(|request| {
        part(request, 0, image(&data_url("image/png")));
    }),
    Feature::new(
        "an image in a system message",
        "messages.content",
        |request, _| part(request, 0, image(&data_url("image/png"))),
    )
    .on(|request| {
        insert(request, 0, Message::text(Role::System, "Be brief."));
    }),
    Feature::new(
        "a file in a system message",
        "messages.content",
        |request, _| part(request, 0, file(&data_url("application/pdf"))),
    )
    .on(|request| {
        insert(request, 0, Message::text(Role::System, "Be brief."));
    }),
    Feature::new(
        "a file in a later system message",
        "messages.content",
        |request, _| part(request, 1, file(&data_url("application/pdf"))),
    )
    .on(|request| {
        insert(request, 1, Message::text(Role::System, "Be brief."));
    }),
    Feature::new("an image in an answer", "messages.content", |request, _| {
        part(request, 1, image(&data_url("image/png")))
    })
    .on(answered),
    Feature::new(
        "an image in a tool's result",
        "messages.content",
        |request, _| part(request, 2, image(&data_url("image/png"))),
    )
    .on(called),
    Feature::new(
        "a file as a `data:` URL",
        "messages.content",
        |request, _| part(request, 0, file(&data_url("application/pdf"))),
    ),
    Feature::new(
        "a file as an `https:` URL",
        "messages.content",
        |request, _| part(request, 0, file(&https_url("pdf"))),
    ),
    Feature::new(
        "a file's name",
        "messages.content",
        |request, _| match request.messages[0].content.last_mut() {
            Some(ContentPart::File { name, .. }) => set(name, format!("{PROBE}.pdf")),
            _ => false,
        },
    )
    .on(filed),
    Feature::new(
        "a file whose media type stands beside it",
        "messages.content",
        |request, _| {
            let document = ContentPart::File {
                url: format!("data:;base64,{PROBE_BASE64}"),
                media_type: Some("application/pdf".to_owned()),
                name: None,
            };
            part(request, 0, document)
        },
    ),
    Feature::new("another document", "messages.content", |request, _| {
        part(request, 0, file(&data_url("application/msword")))
    }),
    Feature::new(
        "a text as an `https:` URL",
        "messages.content",
        |request, _| part(request, 0, file(&https_url("txt"))),
    ),
    Feature::new("a file in an answer", "messages.content", |request, _| {
        part(request, 1, file(&data_url("application/pdf")))
    })
    .on(answered),
    Feature::new("a sound", "messages.content", |request, _| {
        part(request, 0, file(&data_url("audio/wav")))
    }),
    Feature::new("a video", "messages.content", |request, _| {
        part(request, 0, file(&https_url("mp4")))
    }),
    Feature::new(
        "a file in a tool's result",
        "messages.content",
        |request, _| part(request, 2, file(&data_url("application/pdf"))),
    )
    .on(called),
    Feature::new(
        "the name of a file in a tool's result",
        "messages.content",
        |request, _| match request.messages[2].content.last_mut() {
            Some(ContentPart::File { name, .. }) => set(name, format!("{PROBE}.pdf")),
            _ => false,
        },
    )
    .on(|request| {
        called(request);
        part(request, 2, file("data:application/pdf;base64,AA=="));
    }),
];
