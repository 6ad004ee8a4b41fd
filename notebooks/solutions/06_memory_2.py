"""How often the question is sent: it depends on whether a word was shown, and on whether the fault can pass."""

my_guess = {
    "server_error": 2,  # it failed before any word; the second time all is well
    "drop_mid_answer": 1,  # words were shown
    "content_filter": 1,  # words were shown, and the filter would stop it again
    "server_error:3": 3,  # three attempts in all, then the turn is failed
    "slow_first_token": 1,  # late is not lost: only after 15 s without any event the connection is given up
}
