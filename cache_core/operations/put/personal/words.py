"""Words that show a number to be a person's: of orders, of telephones, of birth.

All are folded like the texts searched; see `fold`. docs/SECURITY.md lists the languages that are
understood; others are not.
"""

from __future__ import annotations

import re

from cache_core.operations.put.personal.folded import fold


def _words(text: str) -> frozenset[str]:
    return frozenset(fold(text).split())


def _either(text: str) -> str:
    return "|".join(sorted(map(re.escape, fold(text).split()), key=len, reverse=True))


_ENGLISH = """
order invoice booking reservation tracking parcel package shipment delivery customer account
policy contract case claim ticket member membership transaction payment receipt reference
confirmation refund rma waybill consignment passport ssn nhs patient employee student loyalty
subscription appointment incident pnr bsn
"""
_GERMANIC = """
bestellung bestell auftrag auftrags rechnung rechnungs buchung buchungs reservierung
reservierungs sendung sendungs paket lieferung kunde kunden konto vertrag vertrags vorgang
mitglied mitglieds police versicherung versicherten schaden aktenzeichen referenz reisepass
personalausweis fall steuer steueridentifikations bestelling factuur boeking reservering zending
pakket klant rekening polis lidmaatschap dossier klacht bestallning faktura bokning sandning kund
avtal arende ordre bestilling pakke kunde sag sak forsendelse
"""
_ROMANCE = """
commande facture reservation colis suivi livraison client compte contrat dossier billet
reclamation adherent sinistre transaction abonnement passeport pedido factura reserva envio
paquete seguimiento cliente cuenta poliza contrato caso reclamacion expediente socio transaccion
siniestro pasaporte orden encomenda fatura conta apolice processo bilhete remessa rastreio ordine
ordini fattura prenotazione spedizione pacco polizza contratto pratica reclamo biglietto tessera
tracciamento comanda comenzii rezervare rezervarii colet
"""
_EAST_EUROPEAN = """
zamowienie zamowienia zamowieniu faktury rezerwacja rezerwacji przesylka przesylki paczka paczki
klient klienta konta umowa umowy zgloszenie zgloszenia objednavka objednavky rezervace zasilka
zasilky zakaznik smlouva ucet uctu reklamace rendeles rendelesi szamla foglalas csomag ugyfel
rendelesem szamlam foglalasom csomagom tilaukseni laskuni varaukseni lahetykseni
tilaus tilauksen lasku laskun varaus varauksen lahetys lahetyksen asiakas asiakkaan sopimus
siparis siparisim siparisimin siparisiniz siparisinizin
rezervasyon kargo musteri hesap заказ заказа заказу заказе счет счета бронь
брони бронирование бронирования посылка посылки отправление отправления клиент клиента договор
договора обращение обращения полис полиса замовлення рахунок рахунку бронювання клієнта договір
поръчка поръчката фактура παραγγελια παραγγελιας τιμολογιο κρατηση κρατησης δεμα πελατη
"""
_EASTERN = """
طلب الطلب طلبك طلبي طلبية فاتورة الفاتورة حجز الحجز شحنة الشحنة حساب الحساب العميل הזמנה ההזמנה
חשבונית החשבונית משלוח לקוח חשבון سفارش فاکتور رزرو مشتری آرڈر ऑर्डर आर्डर आदेश बुकिंग चालान खाता
खाते ग्राहक pesanan faktur pemesanan pelanggan rekening hàng đơn
"""
_PASSPORTS = """
passaporto passaporte paspoort paszport паспорт паспорта pasaport
"""
SINGULAR = _words(_ENGLISH + _PASSPORTS + _GERMANIC + _ROMANCE + _EAST_EUROPEAN + _EASTERN)
PLURAL = _words("""
orders invoices bookings reservations parcels packages shipments deliveries customers accounts
policies contracts cases claims tickets members transactions payments receipts refunds
bestellungen auftrage rechnungen commandes factures pedidos facturas ordini
""")
OWN_NUMBERS = _words("""
pnr mrn ssn bsn burgerservicenummer imei nric curp cuit инн снилс fuhrerschein ausweis licence
license マイナンバー
""")
"""Affairs that have a number by their name."""
NUMBER = _words("""
number numbers no nr num id ids code ref reference nbr n key identifier nummer nummern kennung
kennzeichen numero numeros nro numer numeru cislo cisla szama szam numarul numarasi numara
numaram numaraniz numerosi numeroni numeronne szamom номер номера номером номеру код номері
αριθμος αριθμο رقم מספר شماره نمبر नंबर नम्बर संख्या क्रमांक nomor số mã szamu č
""")
COMPOUNDS = tuple(
    "nummer numer number nr numero numeron numeroni szama szam szamom no id ids code ref num "
    "cislo".split()
)
"""Endings of compounds with their noun, such as `Bestellnummer` and `orderid`."""

STEMS = SINGULAR | _words("""
ausweis fuhrerschein
bestel order klant boekings reserverings zendings kund boknings bestillings sags police
""")
IS = _words("""
is was are ist lautet war est es era e ar er on jest to je это ειναι है adalah era esta
""")
POSSESSIVE = _words("""
my your his her their our mein meine meiner ihr ihre ihrer dein deine mon ma votre ton mi su tu
mio mia tuo tua suo meu minha seu sua mijn uw min mitt din ditt moj moje moja muj мой моя мое
моего ваш ваша ваше вашего मेरा मेरे आपका आपके שלי شما من
""")
_FILLER = _words("""
has the a an s of for to with this that it its and confirmation status details date placed made
dated from on named called being monday tuesday wednesday thursday friday saturday sunday
yesterday today lautet der die das den dem des mit vom von zu zur zum le la les l d de du des mes
vos sous pour el los las del con y da do das dos o os il lo gli i della dello dell di het een met
van voor av af pod z за под с по на от ο η το του της μου σας هو هي של הוא היא का की के saya anda
""")
BETWEEN = _FILLER | NUMBER | POSSESSIVE | IS
"""Words that may stand between an affair and its number."""

NO_AFFAIR_BEFORE = _words("""
minimum min maximum max per average total top bulk mindest hochst durchschnitts phone cell mobile
suit show
""")
UNITS = _words("""
eur euro euros usd dollar dollars gbp pound pounds chf yen jpy cny rmb rub pln zl kc huf inr
rupees won krw sek nok dkk kr lei cents cent points miles pieces piece pcs items units copies
people persons users customers members employees orders km m cm mm kg g mg l ml gb mb kb tb mah w
kwh hours hour h minutes min seconds s days weeks months years times characters words percent
pages steps stuck punkte meilen einheiten personen kunden tage stunden jahre zeichen personnes
clients jours unites unidades puntos personas dias pezzi punti giorni stuks punten sztuk punktow
руб рублей рубля рубль штук баллов 元 円 日元 дней дня
""")
CALLING = tuple(_words("""
phone telephon cellphone mobil whatsapp sms telegram telefon handy anruf ruckruf rappel appel
portable llam movil celular chiama cellulare telemovel zadzwon dzwon komork позвон перезвон
телефон мобильн puhelin gsm
"""))  # fmt: skip
"""Beginnings of words about telephoning."""

CALL = _words("""
tel call called calling callback ring text dial reach cell ruf rufen bel bellen ligar ligue liga
ringa soita هاتفي هاتف جوال مبايل موبايل טלפון נייד फोन मोबाइल hubungi thoại
""")
YOURS = _words("""
your yours ihre ihrer ihrem ihr deine dein deiner votre vos ton tu su sus tuo tua vostro vostra
suo seu sua uw jouw twoj twoja din ditt ваш вашем твой his her their
""")
YOU = _words("you him them sie dich vous te ti lo lhe u je dig вас тебя вам тебе")
US = _words("us our uns unser unsere nous nos notre nosotros ci noi ons onze oss нам нас")
WE = _words("we wir nous ill")
DENSE_CALLING = _either("手机 手機 电话 電話 携帯 전화 휴대폰 핸드폰 โทร เบอร์")
DENSE_YOURS = re.compile(rf"(?:{_either('您 你 お客様 고객 회원')}).{{0,8}}(?:{DENSE_CALLING})")

_DENSE_NOUN = _either("""
订单 訂單 订购 发票 發票 账单 包裹 快递 快遞 运单 物流 预订 預訂 客户 客戶 会员 會員 账户
賬戶 帐户 账号 帳號 合同 保单 保單 工单 案件 护照 身份证 参考 注文 予約 請求書 伝票 荷物 配送
お客様 顧客 会員 口座 契約 受付番号 問い合わせ番号 주문 예약 송장 운송장 고객 회원 계좌 계약 접수
คำสั่งซื้อ ใบสั่งซื้อ ใบแจ้งหนี้ การจอง พัสดุ ลูกค้า บัญชี
""")
_DENSE_NUMBER = _either("号 号码 號 號碼 编号 編號 番号 ナンバー ID 번호 코드 หมายเลข เลขที่ รหัส เลข")
_DENSE_IS = _either("是 为 為 は が の 는 은 이 가 คือ")
DENSE_BEFORE = re.compile(
    rf"(?:{_DENSE_NOUN}).{{0,2}}?(?P<number>{_DENSE_NUMBER})?\W?(?:{_DENSE_IS})?"
    r"[\W_]{0,4}(?:(?:no|nr|id|number)[\W_]{0,3})?(?:[a-z]{1,4}[-/]?)?$"
)
DENSE_AFTER = re.compile(
    rf"[\W_]{{0,3}}(?:{_DENSE_IS})\W?.{{0,5}}?(?:{_DENSE_NOUN})"
    rf"|[\W_]{{0,3}}(?:{_DENSE_NOUN})(?:{_DENSE_NUMBER})"
)

DENSE_UNIT = re.compile(
    _either("元 円 日元 块 人 件 份 個 个 天 日 年 月 次 点 원 명 개 일 บาท คน วัน")
)

_BORN = _either("""
born dob birthdate birthday geb geboren geburtsdatum geburtstag nacido nacida nacimiento nascido
nascida nascimento nascita geboortedatum urodzony urodzona urodzenia fodelsedatum fodd fodt
fodselsdato syntynyt syntymaaika narozen narozena narozeni szuletett szuletesi nascut nasterii
dogum родился родилась рождения народився народження γεννηθηκα γεννησης ولد ميلاد الميلاد מולד
נולד לידה जन्म जन्मतिथि lahir
""")
BIRTH = re.compile(
    rf"\b(?:{_BORN}|birth date|date of birth|ne(?:e|\(e\))? le|naissance|"
    rf"nat[oa] il|naci el)\b|\bur\.(?= ?\d)|"
    + _either("出生 生日 生年月日 誕生日 생년월일 생일 วันเกิด")
)
_DATE = (
    r"\d{1,2} ?[./-] ?\d{1,2} ?[./-] ?(?:19|20)?\d\d|"
    r"(?:19|20)\d\d\D{1,4}\d{1,2}\D{1,4}\d{1,2}|"
    r"\d{1,2}(?:st|nd|rd|th)?\.? (?:de |of )?[^\W\d_]{3,14}\.?,? (?:de )?(?:19|20)\d\d|"
    r"[^\W\d_]{3,14}\.? \d{1,2}(?:st|nd|rd|th)?,? (?:19|20)\d\d"
)
BIRTH_DATE = re.compile(_DATE)
BORN_ON = re.compile(
    rf"(?:{_DATE})[ ,]{{0,2}}(?:(?:in )?[^\W\d_]{{2,20}} )?(?:geboren|生まれ|日生|태어)"
)
"""Date of birth before the word for it."""

ROLES = _words("""
support help helpdesk info information contact service services sales care team office hello hi
reply noreply donotreply billing press media jobs career careers privacy dpo gdpr returns return
order orders feedback kontakt hilfe hallo admin administrator security legal claims accounts
accounting customer customers customercare customerservice customersupport kundenservice
kundendienst mail email post postmaster webmaster hostmaster abuse newsletter marketing shop
store booking bookings reservation reservations reception events tickets hr recruiting
recruitment bewerbung partner partners partnerships investors compliance complaints refunds
refund shipping warranty repair repairs api developers status bestellung rechnung reklamation
datenschutz impressum buero sekretariat ventas soporte ayuda contacto pedidos atencion aide
commande commandes serviceclient vendite assistenza ordini contatti vendas suporte ajuda contato
klantenservice verkoop hulp kundtjanst kundeservice asiakaspalvelu pomoc biuro obsluga sklep
podpora objednavky поддержка инфо
""")
ROLE_PARTS = ROLES | _words("""
no do not desk line center centre global international intl eu de us uk at ch fr es it nl be pl
dk se the our group dept department
""")
