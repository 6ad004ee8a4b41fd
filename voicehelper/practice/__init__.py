"""A practice server on 127.0.0.1 that speaks Azure OpenAI's Realtime protocol and Azure Speech's text-to-speech protocol.

It runs in its own process (`launcher` starts it; `python -m voicehelper.practice` is it), so the real clients are used offline.
"""
