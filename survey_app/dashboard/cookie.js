// Keeps the reader's token in a cookie, so that a reload need not ask again. max_age_s = 0 deletes it.
// Only the websocket's handshake brings it to the server, which this site's own pages open: SameSite=Strict does.

export default function ({ data }) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie =
    `${data.name}=${data.value}; Path=${data.path}; Max-Age=${data.max_age_s}; SameSite=Strict${secure}`;
}
