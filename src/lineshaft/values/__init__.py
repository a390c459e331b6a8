"""Values as users spell them: durations, instants, sizes, ids and raw JSON, parsed, checked and printed."""
