/* socksload: origin server and SOCKS5 load generator for side-by-side measurements on loopback.
 *
 *   socksload origin [PORT]                     TCP and UDP test origin on 127.0.0.1; says which port it has
 *   socksload MODE [options]                    MODE: connrate bulk rtt idle udp
 *     -x HOST:PORT   proxy (leave out: straight to the origin, the physical limit)
 *     -u USER:PASS   authenticate by RFC 1929; %d in USER becomes the number of the connection
 *     -o HOST:PORT   origin (an IPv4 address)
 *     -c N           connections / streams / associations held at once
 *     -t SECONDS     how long the measured part lasts; SIGTERM ends it early, with its figures
 *                    connrate -t 0: N sessions at once and no more; idle -t 0: until standard input ends
 *     -r RATE        connrate, rtt: so many a second in all, on a fixed schedule, whatever the answers do;
 *                    times count from when a message was due, so a stall counts for all that it delayed
 *     -n N           the client has N addresses, 127.0.1.1 and up, used in turn (200)
 *     -s BYTES       message or datagram size (rtt, udp)
 *     -w N           datagrams in flight per association (udp)
 *     -U             bulk: upload instead of download
 *
 * Each mode prints one line of key=value figures. Build: cc -O2 -o socksload socksload.c -lpthread
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char bufs[2][1 << 18];
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }
static volatile sig_atomic_t stopped;
static void stop(int number) { (void)number; stopped = 1; }
static void die(const char *m) { perror(m); exit(1); }
static void nonblock(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }
static void nodelay(int fd) { int one = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); }

/* ---- origin ------------------------------------------------------------------------------------
 * First byte of a TCP connection: 'C' answer one byte, 'D' send zeros until closed, 'U' swallow
 * until end of input, then answer the 8-byte count (big endian), 'E' echo.                         */
struct oc { int fd; char kind; uint64_t count; uint32_t events; size_t have, done; char *echo; };
static int oep;
static void oclose(struct oc *c) { close(c->fd); free(c->echo); free(c); }
static void oevents(struct oc *c, uint32_t ev) {
    if (c->events == ev) return;
    c->events = ev;
    struct epoll_event e = {.events = ev, .data.ptr = c};
    epoll_ctl(oep, EPOLL_CTL_MOD, c->fd, &e);
}
static void oserve(struct oc *c, uint32_t ev) {
    if (!c->kind) {
        ssize_t n = recv(c->fd, &c->kind, 1, 0);
        if (n <= 0) { if (n < 0 && errno == EAGAIN) return; oclose(c); return; }
        if (c->kind == 'D') { oevents(c, EPOLLOUT); return; }
        if (c->kind == 'E') c->echo = malloc(65536);
    }
    if (c->kind == 'C') {
        if (!c->count) { c->count = 1; send(c->fd, "c", 1, MSG_NOSIGNAL); }
        ssize_t n = recv(c->fd, bufs[0], 4096, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) oclose(c);
        return;
    }
    if (c->kind == 'D') {
        if (ev & (EPOLLHUP | EPOLLERR)) { oclose(c); return; }
        for (int i = 0; i < 4; i++) {
            ssize_t n = send(c->fd, bufs[1], sizeof bufs[1], MSG_NOSIGNAL);
            if (n < 0) { if (errno != EAGAIN) oclose(c); return; }
        }
        return;
    }
    if (c->kind == 'U') {
        for (int i = 0; i < 8; i++) {
            ssize_t n = recv(c->fd, bufs[0], 1 << 20, MSG_TRUNC);
            if (n > 0) { c->count += n; continue; }
            if (n < 0 && errno == EAGAIN) return;
            if (n == 0) {
                unsigned char out[8];
                for (int k = 0; k < 8; k++) out[k] = c->count >> (56 - 8 * k);
                send(c->fd, out, 8, MSG_NOSIGNAL);
            }
            oclose(c);
            return;
        }
        return;
    }
    for (;;) { /* echo, with backpressure */
        if (c->done < c->have) {
            ssize_t n = send(c->fd, c->echo + c->done, c->have - c->done, MSG_NOSIGNAL);
            if (n < 0) { if (errno == EAGAIN) oevents(c, EPOLLOUT); else oclose(c); return; }
            c->done += n;
            if (c->done < c->have) { oevents(c, EPOLLOUT); return; }
        }
        ssize_t n = recv(c->fd, c->echo, 65536, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { oclose(c); return; }
        if (n < 0) { oevents(c, EPOLLIN); return; }
        c->have = n, c->done = 0;
    }
}
static void *udp_origin(void *arg) {
    enum { B = 64 };
    int fd = *(int *)arg;
    static char data[B][2048];
    struct mmsghdr m[B]; struct iovec v[B]; struct sockaddr_in a[B];
    for (;;) {
        for (int i = 0; i < B; i++) {
            v[i] = (struct iovec){data[i], sizeof data[i]};
            m[i].msg_hdr = (struct msghdr){.msg_name = &a[i], .msg_namelen = sizeof a[i], .msg_iov = &v[i], .msg_iovlen = 1};
        }
        int n = recvmmsg(fd, m, B, MSG_WAITFORONE, NULL);
        for (int i = 0; i < n; i++) v[i].iov_len = m[i].msg_len;
        for (int sent = 0; sent < n;) { int k = sendmmsg(fd, m + sent, n - sent, 0); sent += k > 0 ? k : 1; }
    }
    return NULL;
}
static void origin(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, big = 4 << 20;
    int lfd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(lfd, (void *)&a, sizeof a) || listen(lfd, 4096)) die("bind");
    socklen_t l = sizeof a;
    getsockname(lfd, (void *)&a, &l);
    nonblock(lfd);
    int ufd = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(ufd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    if (bind(ufd, (void *)&a, sizeof a)) die("bind udp");
    pthread_t th; pthread_create(&th, NULL, udp_origin, &ufd);
    printf("mode=origin port=%d\n", ntohs(a.sin_port));
    fflush(stdout);
    oep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, evs[256];
    epoll_ctl(oep, EPOLL_CTL_ADD, lfd, &e);
    for (;;) {
        int n = epoll_wait(oep, evs, 256, -1);
        for (int i = 0; i < n; i++) {
            if (evs[i].data.ptr) { oserve(evs[i].data.ptr, evs[i].events); continue; }
            for (int fd; (fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                nodelay(fd);
                struct oc *c = calloc(1, sizeof *c);
                c->fd = fd, c->events = EPOLLIN;
                struct epoll_event ce = {.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(oep, EPOLL_CTL_ADD, fd, &ce);
                oserve(c, EPOLLIN);
            }
        }
    }
}

/* ---- client ------------------------------------------------------------------------------------ */
static struct sockaddr_in proxy, orig;
static int have_proxy, C = 50, W = 32, sources = 200;
static char *user, *pass;
static double T = 5, R;
static size_t S = 64;
static int upload;

enum { CONNECTING, METHOD, AUTH, REPLY, READY };
enum { REFUSED = -2, FAILED = -1, MORE = 0, DONE = 1 }; /* what a step of the handshake came to */
struct conn { int fd, state, idx; double t0, due; unsigned char in[512]; size_t have; uint64_t bytes; uint64_t seq; };

static void addr(const char *s, struct sockaddr_in *a) {
    char host[64]; int port;
    if (sscanf(s, "%63[^:]:%d", host, &port) != 2) { fprintf(stderr, "bad address %s\n", s); exit(2); }
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    if (!inet_aton(host, &a->sin_addr)) { fprintf(stderr, "bad address %s\n", s); exit(2); }
}
static int dial(struct conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    nodelay(c->fd);
    /* spread the client's sources over many addresses so that ports do not run out */
    struct sockaddr_in src = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000101 + c->idx % sources)};
    int one = 1;
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (void *)&src, sizeof src)) die("bind source");
    c->state = have_proxy ? CONNECTING : READY;
    c->have = 0, c->bytes = 0, c->t0 = now();
    struct sockaddr_in *to = have_proxy ? &proxy : &orig;
    return connect(c->fd, (void *)to, sizeof *to) && errno != EINPROGRESS ? -1 : 0;
}
static int put(int fd, const void *p, size_t n) { return send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n ? MORE : FAILED; }
static int request(int fd, int cmd) {
    unsigned char r[10] = {5, cmd, 0, 1};
    if (cmd == 1) memcpy(r + 4, &orig.sin_addr, 4), memcpy(r + 8, &orig.sin_port, 2);
    return put(fd, r, 10);
}
static int login(struct conn *c) {
    unsigned char m[520];
    size_t ul = snprintf((char *)m + 2, 256, user, c->idx), pl = strlen(pass);
    m[0] = 1, m[1] = ul, m[2 + ul] = pl, memcpy(m + 3 + ul, pass, pl);
    return put(c->fd, m, 3 + ul + pl);
}
/* One step of the handshake. */
static int step(struct conn *c, int cmd) {
    if (c->state == CONNECTING) {
        int err; socklen_t l = sizeof err;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &l);
        if (err) return FAILED;
        unsigned char hello[3] = {5, 1, user ? 2 : 0};
        c->state = METHOD;
        return put(c->fd, hello, 3);
    }
    for (;;) {
        size_t want = c->state == REPLY ? (c->have < 4 ? 4 : c->in[3] == 4 ? 22 : c->in[3] == 3 ? (c->have < 5 ? 5 : 7u + c->in[4]) : 10) : 2;
        if (c->have < want) {
            ssize_t n = recv(c->fd, c->in + c->have, want - c->have, 0);
            if (n < 0 && errno == EAGAIN) return MORE;
            if (n <= 0) return FAILED;
            c->have += n;
            continue;
        }
        if (c->state == METHOD) {
            if (c->in[1] != (user ? 2 : 0)) return REFUSED;
            c->have = 0, c->state = user ? AUTH : REPLY;
            if (user ? login(c) : request(c->fd, cmd)) return FAILED;
        } else if (c->state == AUTH) {
            if (c->in[1]) return REFUSED;
            c->have = 0, c->state = REPLY;
            if (request(c->fd, cmd)) return FAILED;
        } else {
            if (c->in[1]) return REFUSED;
            c->state = READY;
            return DONE;
        }
    }
}
/* Blocking handshake, for the modes that measure what comes after it. */
static int establish(struct conn *c, int cmd) {
    if (dial(c)) die("connect");
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_NONBLOCK);
    struct timeval tv = {20, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    struct pollfd writable = {.fd = c->fd, .events = POLLOUT};
    poll(&writable, 1, 20000);
    if (c->state == READY) return 0;
    for (int r; (r = step(c, cmd)) != DONE;) if (r < 0) return -1;
    return 0;
}
static int cmp(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }
struct times { double *s; size_t n, room; };
static struct times whole, handshake;
static void sample(struct times *t, double d) {
    if (t->n == t->room) t->s = realloc(t->s, (t->room = t->room ? 2 * t->room : 4096) * sizeof *t->s);
    t->s[t->n++] = d;
}
static void sort(struct times *t) { if (t->n) qsort(t->s, t->n, sizeof *t->s, cmp); }
static double pct(const struct times *t, double p) { return t->n ? t->s[(size_t)(p * (t->n - 1))] * 1e3 : 0; }

static uint64_t rate_ok, rate_refused, rate_failed, rate_no_address;
static int rate_live, rate_next, rate_ep;
static void rate_start(struct conn *c, double due) {
    c->idx = rate_next++;
    if (dial(c)) {
        if (errno == EADDRNOTAVAIL) rate_no_address++;
        rate_failed++, close(c->fd), c->fd = -1;
        return;
    }
    if (due) c->t0 = due;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    epoll_ctl(rate_ep, EPOLL_CTL_ADD, c->fd, &e);
    rate_live++;
}
/* What an event brings: DONE once the origin's byte is here. */
static int rate_step(struct conn *c) {
    int r = MORE;
    if (c->state != READY && (r = step(c, 1)) < 0) return r;
    if (c->state == READY && !c->bytes) {
        c->bytes = 1;
        sample(&handshake, now() - c->t0);
        if (put(c->fd, "C", 1)) { /* straight: not connected yet */
            if (have_proxy || errno != EAGAIN) return FAILED;
            c->bytes = 0, handshake.n--;
            return MORE;
        }
    }
    if (c->state != READY) return MORE;
    char b[16];
    ssize_t k = recv(c->fd, b, sizeof b, 0);
    return k > 0 ? DONE : k == 0 || errno != EAGAIN ? FAILED : MORE;
}
static void connrate(void) {
    rate_ep = epoll_create1(0);
    struct epoll_event evs[256];
    double start = now(), end = start + T;
    int again = R == 0; /* closed loop: whoever has finished starts again */
    if (again) for (int i = 0; i < C; i++) rate_start(calloc(1, sizeof(struct conn)), 0);
    while (rate_live || (!again && !stopped && now() < end)) {
        for (double due; !again && !stopped && (due = start + rate_next / R) <= now() && due < end;)
            rate_start(calloc(1, sizeof(struct conn)), due);
        int n = epoll_wait(rate_ep, evs, 256, again ? 1000 : 1);
        if (n <= 0 && now() > end + 15) break;
        for (int i = 0; i < n; i++) {
            struct conn *c = evs[i].data.ptr;
            int r = rate_step(c);
            if (r == MORE) continue;
            if (r == DONE) rate_ok++, sample(&whole, now() - c->t0);
            else if (r == REFUSED) rate_refused++;
            else rate_failed++;
            close(c->fd), rate_live--;
            if (again && !stopped && now() < end) rate_start(c, 0);
            else free(c);
        }
    }
    double el = now() - start;
    sort(&whole), sort(&handshake);
    printf("mode=connrate c=%d started=%d ok=%lu refused=%lu failed=%lu no_address=%lu hung=%d rate=%.0f p50_ms=%.2f"
           " p99_ms=%.2f max_ms=%.2f handshake_p50_ms=%.2f handshake_p99_ms=%.2f handshake_max_ms=%.2f elapsed_s=%.2f\n",
           C, rate_next, rate_ok, rate_refused, rate_failed, rate_no_address, rate_live, rate_ok / el, pct(&whole, .5),
           pct(&whole, .99), pct(&whole, 1), pct(&handshake, .5), pct(&handshake, .99), pct(&handshake, 1), el);
}
static void bulk(void) {
    int ep = epoll_create1(0);
    struct conn *cs = calloc(C, sizeof *cs);
    for (int i = 0; i < C; i++) {
        cs[i].idx = i;
        if (establish(&cs[i], 1)) { fprintf(stderr, "handshake refused\n"); exit(1); }
        put(cs[i].fd, upload ? "U" : "D", 1);
        nonblock(cs[i].fd);
        struct epoll_event e = {.events = upload ? EPOLLOUT : EPOLLIN, .data.ptr = &cs[i]};
        epoll_ctl(ep, EPOLL_CTL_ADD, cs[i].fd, &e);
    }
    struct epoll_event evs[256];
    /* what lies in the buffers of streams that waited for the last handshake was not carried now */
    double settle = .5 + C / 200., ws = 0;
    uint64_t total = 0, warm = 0; double start = now(), t = start; int lost = 0;
    while ((t = now()) < start + settle + T && !stopped) {
        if (!ws && t > start + settle) { /* from here on it counts */
            ws = t, warm = total;
            for (int i = 0; i < C; i++) cs[i].bytes = 0;
        }
        int n = epoll_wait(ep, evs, 256, 200);
        for (int i = 0; i < n; i++) {
            struct conn *c = evs[i].data.ptr;
            ssize_t k = upload ? send(c->fd, bufs[1], sizeof bufs[1], MSG_NOSIGNAL) : recv(c->fd, NULL, 1 << 20, MSG_TRUNC);
            if (k > 0) total += k, c->bytes += k;
            else if (k == 0 || errno != EAGAIN) { epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL); lost++; }
        }
    }
    uint64_t lo = ~0ull, hi = 0;
    for (int i = 0; i < C; i++) { if (cs[i].bytes < lo) lo = cs[i].bytes; if (cs[i].bytes > hi) hi = cs[i].bytes; }
    printf("mode=bulk dir=%s streams=%d lost=%d gbit_s=%.2f fairness_min_over_max=%.3f bytes=%lu\n", upload ? "up" : "down",
           C, lost, ws ? (total - warm) * 8e-9 / (t - ws) : 0, hi ? (double)lo / hi : 0, total);
}
/* The next message of this connection; on a schedule it may have been due long ago. */
static void ping(struct conn *c) {
    c->t0 = R ? c->due : now(), c->due += R ? C / R : 0, c->state = READY;
    send(c->fd, bufs[1], S, MSG_NOSIGNAL);
}
/* Send what is due; how long until the next one is. */
static struct timespec ping_all_due(struct conn *cs, double end) {
    double next = end;
    for (int i = 0; i < C; i++) {
        struct conn *c = &cs[i];
        if (c->state == CONNECTING && c->due <= now()) ping(c); /* CONNECTING: nothing is on its way */
        if (c->state == CONNECTING && c->due < next) next = c->due;
    }
    double left = next - now();
    if (left < 0) left = 0;
    return (struct timespec){(time_t)left, (long)((left - (time_t)left) * 1e9)};
}
static void rtt(void) {
    int ep = epoll_create1(0);
    struct conn *cs = calloc(C, sizeof *cs);
    for (int i = 0; i < C; i++) {
        cs[i].idx = i;
        if (establish(&cs[i], 1)) { fprintf(stderr, "handshake refused\n"); exit(1); }
        put(cs[i].fd, "E", 1);
        nonblock(cs[i].fd);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &cs[i]};
        epoll_ctl(ep, EPOLL_CTL_ADD, cs[i].fd, &e);
    }
    struct epoll_event evs[256]; double start = now(); int lost = 0;
    for (int i = 0; i < C; i++) {
        cs[i].due = start + (R ? i / R : 0), cs[i].state = CONNECTING;
        if (!R) ping(&cs[i]);
    }
    while (now() < start + T && !stopped) {
        struct timespec wait = R ? ping_all_due(cs, start + T) : (struct timespec){0, 200000000};
        int n = epoll_pwait2(ep, evs, 256, &wait, NULL);
        for (int i = 0; i < n; i++) {
            struct conn *c = evs[i].data.ptr;
            ssize_t k = recv(c->fd, bufs[0], sizeof bufs[0], 0);
            if (k <= 0) {
                if (k < 0 && errno == EAGAIN) continue;
                epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL), lost++;
                continue;
            }
            c->bytes += k;
            if (c->bytes < S) continue;
            sample(&whole, now() - c->t0), c->bytes = 0, c->state = CONNECTING;
            if (!R) ping(c);
        }
    }
    double el = now() - start;
    sort(&whole);
    printf("mode=rtt c=%d size=%zu lost=%d rate=%.0f p50_us=%.0f p99_us=%.0f max_us=%.0f\n", C, S, lost, whole.n / el,
           pct(&whole, .5) * 1e3, pct(&whole, .99) * 1e3, pct(&whole, 1) * 1e3);
}
static void idle(void) {
    struct conn *cs = calloc(C, sizeof *cs);
    double start = now();
    for (int i = 0; i < C; i++) {
        double t = now();
        cs[i].idx = i;
        if (establish(&cs[i], 1)) { fprintf(stderr, "refused at %d\n", i); exit(1); }
        sample(&handshake, now() - t);
        put(cs[i].fd, "E", 1);
    }
    sort(&handshake);
    printf("mode=idle held=%d opened_s=%.2f handshake_p50_ms=%.2f handshake_p99_ms=%.2f\n", C, now() - start,
           pct(&handshake, .5), pct(&handshake, .99));
    fflush(stdout);
    char c;
    if (T == 0) while (!stopped && read(0, &c, 1) > 0) {}
    double end = now() + T;
    while (now() < end && !stopped) usleep(50000);
    int alive = 0;
    for (int i = 0; i < C; i++) {
        put(cs[i].fd, "z", 1);
        char b;
        if (recv(cs[i].fd, &b, 1, 0) == 1) alive++;
    }
    printf("mode=idle_end alive=%d of=%d\n", alive, C);
}
static void udp(void) {
    struct conn *cs = calloc(C, sizeof *cs);
    int *u = calloc(C, sizeof *u), *flying = calloc(C, sizeof *flying);
    int ep = epoll_create1(0), big = 4 << 20;
    size_t hdr = have_proxy ? 10 : 0;
    static char out[65536]; static char in[64][2048];
    unsigned char h[10] = {0, 0, 0, 1};
    memcpy(h + 4, &orig.sin_addr, 4), memcpy(h + 8, &orig.sin_port, 2);
    memcpy(out, h, hdr);
    if (S < 16) S = 16;
    for (int i = 0; i < C; i++) {
        struct sockaddr_in relay = orig;
        cs[i].idx = i;
        if (have_proxy) {
            if (establish(&cs[i], 3)) { fprintf(stderr, "associate refused\n"); exit(1); }
            memcpy(&relay.sin_addr, cs[i].in + 4, 4), memcpy(&relay.sin_port, cs[i].in + 8, 2);
            if (!relay.sin_addr.s_addr) relay.sin_addr = proxy.sin_addr;
        }
        u[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        setsockopt(u[i], SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
        struct sockaddr_in src = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000101 + i % sources)};
        if (bind(u[i], (void *)&src, sizeof src)) die("bind udp");
        if (connect(u[i], (void *)&relay, sizeof relay)) die("connect udp");
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(ep, EPOLL_CTL_ADD, u[i], &e);
    }
    uint64_t sent = 0, got = 0, bad = 0;
    double start = now(), end = start + T, last = start;
    struct epoll_event evs[64];
    struct mmsghdr m[64]; struct iovec v[64];
    while (now() < end && !stopped) {
        double t = now();
        int refill = t - last > .05;
        for (int i = 0; i < C; i++) {
            if (refill) flying[i] = 0; /* what is still out is lost */
            int k = W - flying[i];
            if (k > 64) k = 64;
            if (k <= 0) continue;
            for (int j = 0; j < k; j++) {
                v[j] = (struct iovec){out, hdr + S};
                memset(&m[j], 0, sizeof m[j]);
                m[j].msg_hdr.msg_iov = &v[j], m[j].msg_hdr.msg_iovlen = 1;
            }
            int n = sendmmsg(u[i], m, k, 0);
            if (n > 0) sent += n, flying[i] += n;
        }
        if (refill) last = t;
        int n = epoll_wait(ep, evs, 64, 10);
        for (int x = 0; x < n; x++) {
            int i = evs[x].data.u32;
            for (int j = 0; j < 64; j++) {
                v[j] = (struct iovec){in[j], sizeof in[j]};
                memset(&m[j], 0, sizeof m[j]);
                m[j].msg_hdr.msg_iov = &v[j], m[j].msg_hdr.msg_iovlen = 1;
            }
            int k = recvmmsg(u[i], m, 64, MSG_DONTWAIT, NULL);
            for (int j = 0; j < k; j++) {
                if (m[j].msg_len != hdr + S || memcmp(in[j], h, hdr)) bad++; else got++;
                if (flying[i]) flying[i]--;
            }
            if (k > 0) last = now();
        }
    }
    printf("mode=udp assoc=%d size=%zu sent=%lu got=%lu bad=%lu pps=%.0f loss=%.4f\n", C, S, sent, got, bad, got / (now() - start), sent ? 1 - (double)(got + bad) / sent : 0);
}
int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop);
    struct rlimit r; getrlimit(RLIMIT_NOFILE, &r); r.rlim_cur = r.rlim_max; setrlimit(RLIMIT_NOFILE, &r);
    if (argc < 2) { fprintf(stderr, "usage: see the head of socksload.c\n"); return 2; }
    if (!strcmp(argv[1], "origin")) { signal(SIGTERM, SIG_DFL); origin(argc > 2 ? atoi(argv[2]) : 0); } /* never returns */
    char *mode = argv[1];
    addr("127.0.0.1:9000", &orig);
    for (int o; (o = getopt(argc - 1, argv + 1, "x:u:o:c:t:r:n:s:w:U")) != -1;) switch (o) {
        case 'x': addr(optarg, &proxy), have_proxy = 1; break;
        case 'u': user = strdup(optarg), pass = strchr(user, ':'); if (!pass) return 2; *pass++ = 0; break;
        case 'o': addr(optarg, &orig); break;
        case 'c': C = atoi(optarg); break;
        case 't': T = atof(optarg); break;
        case 'r': R = atof(optarg); break;
        case 'n': sources = atoi(optarg); break;
        case 's': S = atoi(optarg); break;
        case 'w': W = atoi(optarg); break;
        case 'U': upload = 1; break;
        default: return 2;
    }
    if (!strcmp(mode, "connrate")) connrate();
    else if (!strcmp(mode, "bulk")) bulk();
    else if (!strcmp(mode, "rtt")) rtt();
    else if (!strcmp(mode, "idle")) idle();
    else if (!strcmp(mode, "udp")) udp();
    else { fprintf(stderr, "unknown mode %s\n", mode); return 2; }
    return 0;
}
