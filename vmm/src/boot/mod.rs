//! Boot protocols: images and initial CPU state, as pure plans and a thin loader.
