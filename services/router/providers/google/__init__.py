"""Between OpenAI's chats and Gemini's contents, both ways, for whatever door Gemini is asked at. Pure, but for the calls."""
