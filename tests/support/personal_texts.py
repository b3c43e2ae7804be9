"""Texts with something of one person in them, by kind and language, and texts that companies publish.

All numbers are invented, reserved for examples, or the examples of libphonenumber.
"""

from __future__ import annotations

from collections.abc import Iterator

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from cache_core.operations.put.personal.numbering import REGIONS

SPELLED = (
    "{}", "**{}**", "`{}`", "({})", '"{}"', "“{}”", "«{}»", "_{}_", "[{}](https://shop.test/)",
    "<b>{}</b>", "#{}", ": {}", "\u00a0{}", "– {} –", "\u200b{}", "\n{}\n",
)  # fmt: skip
"""Ways in which a number stands in an answer."""

AFFAIRS = {
    "en": ("Your order {} ships.", "order_id={}", "Order's number is {}.", "orderId: {}",
           "{} is your order number.", "{} is the number of my order", "Invoice no. {} is due.",
           "Ticket ID {} is open", "booking reference {}", "my customer number is {}",
           "policy number: {}", "Incident {} is open.", "MRN {}", "Account {} is blocked.", "claim {} was filed", "({} = order id)",
           '{{"order": {{"id": "{}"}}}}', "| order | date | state |\n|---|---|---|\n| {} | May | sent |"),
    "de": ("Ihre Bestellung {} kommt.", "Bestell-Nr. {}", "Bestellnummer: {}", "Rechnung Nr. {}",
           "Ihre Bestellung mit der Nummer {}", "Meine Kundennummer lautet {}",
           "{} ist meine Bestellnummer", "Auftrag {} wurde versandt"),
    "fr": ("Votre commande {} part.", "commande n° {}", "numéro de commande : {}",
           "{} est mon numéro de commande", "facture numéro {}", "réservation {}"),
    "es": ("Su pedido {} sale.", "pedido número {}", "número de pedido: {}", "factura nº {}",
           "{} es mi número de pedido", "reserva {}"),
    "pt": ("O seu pedido {} saiu.", "encomenda nº {}", "número do pedido: {}", "fatura {}"),
    "it": ("Il tuo ordine {} parte.", "ordine n. {}", "numero d'ordine {}", "fattura {}"),
    "nl": ("Uw bestelling {} komt.", "bestelnummer {}", "ordernummer: {}", "factuurnummer {}"),
    "sv": ("Din beställning {} är på väg.", "ordernummer {}", "fakturanummer: {}"),
    "da": ("Din ordre {} er sendt.", "ordrenummer {}", "kundenummer {}"),
    "fi": ("Tilaus {} on lähetetty.", "tilausnumero {}", "tilauksen numero on {}",
           "Tilausnumeroni on {}", "tilaukseni numero on {}"),
    "pl": ("Zamówienie {} wysłane.", "numer zamówienia: {}", "faktura nr {}"),
    "cs": ("Objednávka {} odeslána.", "číslo objednávky {}", "faktura č. {}"),
    "hu": ("A {} számú rendelés úton van.", "rendelésszám: {}", "számla {}",
           "A rendelésszámom {}", "a rendelésem száma {}"),
    "ro": ("Comanda {} a plecat.", "numărul comenzii {}", "factura nr. {}"),
    "tr": ("Sipariş numarası {}", "sipariş no: {}", "fatura {}",
           "sipariş numaram {}", "siparişimin numarası {}"),
    "ru": ("Ваш заказ {} в пути.", "номер заказа {}", "заказ № {}", "{} это мой номер заказа"),
    "uk": ("Замовлення {} в дорозі.", "номер замовлення {}"),
    "el": ("Η παραγγελία {} εστάλη.", "αριθμός παραγγελίας {}"),
    "ar": ("رقم الطلب {}", "طلب رقم {}", "الفاتورة {}"),
    "he": ("הזמנה {} נשלחה", "מספר הזמנה {}"),
    "fa": ("شماره سفارش {}", "سفارش {} ارسال شد"),
    "hi": ("ऑर्डर नंबर {}", "मेरा ऑर्डर {} कहाँ है"),
    "zh": ("订单号{}在哪里", "我的订单是{}", "订单 {} 已发货", "訂單編號：{}", "{}是我的订单号"),
    "ja": ("注文番号は{}です", "ご注文 {} は発送済みです", "予約番号：{}"),
    "ko": ("주문번호 {}", "주문 {}이 배송되었습니다", "예약번호는 {}입니다"),
    "th": ("หมายเลขคำสั่งซื้อ {}", "คำสั่งซื้อ {} ส่งแล้ว"),
    "id": ("Pesanan {} sudah dikirim", "nomor pesanan: {}"),
    "vi": ("Đơn hàng {} đã gửi", "mã đơn hàng {}"),
}  # fmt: skip
NUMBERS = ("48213", "4821-3055", "A48213", "2024-0815", "RE/48213", "48213-B", "4 821 305")
CARDS = ("4111{0}1111{0}1111{0}1111", "5500{0}0000{0}0000{0}0004", "3782{0}822463{0}10005")
IBANS = ("DE89{0}3704{0}0044{0}0532{0}0130{0}00", "GB82{0}WEST{0}1234{0}5698{0}7654{0}32",
         "FR14{0}2004{0}1010{0}0505{0}0001{0}3M02{0}606", "NL91{0}ABNA{0}0417{0}1643{0}00")  # fmt: skip
SEPARATORS = ("", " ", "-", "\u00a0", "\u2011", "\u2013", ".", "\u2009", " - ")
EMAILS = (
    "ann.lee@example.com", "carey.smith@example.com", "badminton.fan@example.com",
    "steve.jobs@example.com", "othello77@example.com", "linforth.j@example.com",
    "infodesk.miller@example.com", "helpful.hanna@example.com", "ann@müller.de",
    "ann@münchen.example", "анна@пример.рф", "用户@例子.公司", "müller@example.de",
    "ann+shop@example.co.uk", "o'brien@example.com", "o’brien@example.com",
    "ann.lee＠example.com", "ann.lee (at) example.com", "ann [at] example [dot] com",
    "ann@xn--mnchen-3ya.example", "a@b.io", "saleem@example.org", "ANN.LEE@EXAMPLE.COM",
)  # fmt: skip
BIRTHS = (
    "I was born on 3 February 1980", "DOB: 1980-02-03", "date of birth 02/03/1980",
    "born February 3rd, 1980", "geb. 03.02.1980", "geboren am 3. Februar 1980",
    "Geburtsdatum: 3.2.80", "né le 3 février 1980", "née le 03/02/1980",
    "date de naissance : 03/02/1980", "nacido el 3 de febrero de 1980",
    "fecha de nacimiento 03/02/1980", "nascida em 3 de fevereiro de 1980",
    "data di nascita 03/02/1980", "geboortedatum 03-02-1980", "data urodzenia: 03.02.1980",
    "födelsedatum 1980-02-03", "дата рождения 03.02.1980", "родилась 3 февраля 1980",
    "出生日期：1980年2月3日", "生年月日 1980/02/03", "생년월일 1980년 2월 3일", "जन्म तिथि ०३.०२.१९८०",
    "تاريخ الميلاد ٠٣/٠٢/١٩٨٠", "doğum tarihi 03.02.1980",
    "Ich bin am 3. Februar 1980 in Bonn geboren", "nací el 3 de febrero de 1980",
    "nato il 3/2/1980", "ur. 3.02.1980", "1980年2月3日生まれ",
)  # fmt: skip
IDENTITIES = (
    "078-05-1120", "my SSN is 219 09 9999", "QQ 12 34 56 C", "RSSMRA85T10A562S", "12345678Z",
    "X1234567L", "1 85 05 78 006 084 91", "44051401359", "11010519491231002X", "123.456.789-09",
    "811228-9874", "131052-308T", "756.9217.0769.85", "85.07.30-033.28", "2341 2341 2346",
    "Reisepass Nr. C01X00T47", "passport number C01X00T47", "NHS number 943 476 5919",
    "ABCPE1234F", "HEGG560427MVZRRL04", "20-12345678-6", "1800101221144", "0101006500006",
    "500100732259", "112-233-445 95", "A123456(3)", "961124-2123456", "52998224725",
    "burgerservicenummer 111222333", "Ausweisnummer L01X00T471", "NRIC S1234567D",
    "driver's license D1234567", "IMEI 490154203237518", "PNR XK42PL", "Booking ref: XK42PL",
)  # fmt: skip


def phones() -> Iterator[tuple[str, str]]:
    """Yield country and an example of a mobile number, in each of five spellings."""
    for region in REGIONS:
        number = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
        e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
        national = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
        yield region, national
        yield region, national.replace(" ", "-")
        yield region, phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
        yield region, e164
        yield region, "00" + e164[1:]


PUBLIC = (
    """
Write to support@example.com within 30 days.|Our hotline is 0800 123456, free of charge.
Call us at +49 30 901820, Monday to Friday, 9:00-17:00.|Call (800) 555-0199 around the clock.
Our office in Berlin: 030 901820.|Reach the London office on 020 7946 0958.
Fax: 030 901821, phone: 030 901820.|Toll-free: 1-800-555-0199.|Rufen Sie uns an: 0800 1234567.
Appelez le 01 23 45 67 89 du lundi au vendredi.|Servizio clienti: 800 123 456.
Sede di Roma: 06 1234 5678.|Llame al 900 123 456.|Bel 0800-1234 voor hulp.|お問い合わせは0120-123-456まで。
Orders over 50 EUR ship free.|Free shipping on orders above 5000 yen.|Minimum order: 1500 pieces.
The minimum order value is 2500 JPY.|We have shipped 250000 orders since 2015.
An order of 1200 units takes 5 days.|Bulk orders of 5000 units and more get 12 % off.
Your order ships within 2-3 days.|Orders placed before 14:00 ship the same day.
You can cancel an order within 14 days.|Returns are free for 30 days after delivery.
Delivery takes 3 to 5 working days, 8 to 10 abroad.|Express delivery costs 9.90 EUR.
The account costs 4.99 a month or 49.90 a year.|Your account comes with 15000 points.
Up to 10,000 requests a day per account.|An account may have 2048 MB of storage.
Accounts are deleted after 36 months.|A member gets 1500 miles on joining.
Members since 2010 get 5 %.|We have 1,000,000 customers in 30 countries.
More than 20000 customers trust us.|In order 2024 onwards we grew by 1200 %.
Open Mon-Fri 08:00-18:30, Sat 09:00-13:00.|Öffnungszeiten: Mo-Fr 8-18 Uhr, Sa 9-13 Uhr.
Closed from 24.12.2026 to 01.01.2027.|The sale runs 2026-11-20 to 2026-11-30.
The offer ends on 31.12.2026.|Founded in 1987, listed since 1999.|© 1998-2026 Example Inc.
The price is 1.299,00 €.|It costs $12,345.67 plus tax.|The total is 1 234 567,89 EUR.
1,299.00 EUR, or 12 payments of 119.99.|The fee is 0.25 %, at least 1500 RUB.
Revenue was 1 234 567 890 USD in 2025.|Population: 83 166 711.|The range is 1000-2000 km.
The X-2000 and the 16-inch ZBook 8.|Article number 603.521.13 is in stock.
ISBN 978-3-16-148410-0.|ISBN 0-306-40615-2.|EAN 4006381333931.|GTIN: 04006381333931.
Item 12345678 is sold out.|Model number MK-48213 has 16 GB.|Part no. 4821-3055 fits.
SKU 100200300 comes in blue.|Product code 48213 is discontinued.|Use the color #ff5733.
The colour #123456 is dark blue.|See issue #48213.|Fixed in PR #1234.|Version 10.4.21 is out.
Python 3.11.4 or newer.|Set the port to 8080 or 50051.|The server is 192.168.0.1.|Use 10.0.0.0/8.
RFC 2616, section 14.9.|Error 0x80070057 means a bad parameter.|HTTP 404 means not found.
Returns to: Example Ltd, Elm Street 12, 10115 Berlin.|PO Box 12345, Springfield, IL 62701.
Amtsgericht Berlin HRB 123456 B.|VAT ID: DE123456789.|USt-IdNr. DE 123 456 789.
SIRET 732 829 320 00074.|Company number 01234567.|Registered as 12-3456789.
Press: press@example.com, jobs: jobs@example.com.|Write to info@example.de or kontakt@example.de.
customer.service@example.com answers in a day.|no-reply@example.com sends it.
privacy@example.com is our data protection office.|support-de@example.com for Germany.
sales@example.co.uk or +44 20 7946 0958.|Mail an bewerbung@example.de.|Escriba a ventas@example.es.
Install it with npm i @angular/core@17.1.2.|pip install requests==2.31.0|lodash@4.17.21 is fixed.
Tickets cost 25 euros, 15 for students.|A ticket is valid for 90 minutes.|Ticket prices rose in 2025.
Bookings open on 1 March 2027.|A booking needs a deposit of 2000 THB.
Reservations are held for 15 minutes.|Policies from 2024 cover 50000 EUR.
The policy covers up to 1000000 EUR.|Claims under 5000 EUR are paid at once.
A claim must be filed within 24 months.|Contracts run for 24 months.|Der Vertrag läuft 24 Monate.
In any case, 5 of 6 pass.|The phone case 12345 fits an iPhone 15.|The case has 1024 pages.
Reference temperature: 1500 degrees.|The passport office opens at 9.|A passport costs 70 EUR.
Take 400 mg, at most 1200 mg a day.|Serves 4: 250 g flour, 1500 ml milk.
It weighs 1250 g and measures 120 x 80 x 75 cm.|The battery has 5000 mAh.
The limit is 5000 characters.|Save up to 2000 files.|The pin has 4 digits.|1234 is no good password.
The 2024 model has 1000 hp.|From 0 to 100 in 3.2 s.|Flight LH 400 leaves at 10:55.
Bus 1234 stops here.|Take exit 1203, then 2 km.|The train 9575 to Paris runs daily.
1000 to 1500 people came.|In 1492 and 1776.|It was 30 years ago, in 1996.|World record: 9.58 s.
Die Bestellung ist ab 50 Euro frei.|Bestellungen ab 1000 Stück: 10 % Rabatt.
La commande est livrée en 48 heures.|El pedido llega en 3 días.|Zamówienie od 200 zł bez opłat.
Заказ от 3000 рублей доставим бесплатно.|満5000円以上のご注文は送料無料です。|订单满200元包邮。
주문 금액 50000원 이상 무료 배송.|ऑर्डर 500 रुपये से ऊपर मुफ़्त.|Tilaus toimitetaan 3 päivässä.
Users must be born before 2008.|The company was born in 1987 in a garage.|Goethe was born in Frankfurt.
Call 112 in an emergency.|Dial 9 for an outside line.|Text STOP to 48213.
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
"""Answers that are the same for everybody."""
